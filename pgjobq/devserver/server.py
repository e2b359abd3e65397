"""Start and stop the server. It is a child of this process, and ends when this process ends in any way."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NoReturn, Self

from pgjobq.devserver import programs
from pgjobq.devserver.folder import ServerFolder, remove, sweep, temporary_places
from pgjobq.devserver.programs import DevServerError, Identity, die_with_parent

START_TIMEOUT = 30.0  # seconds
# Signals for a fast and an immediate shutdown, then SIGKILL; the seconds to wait after each.
STOPPING = ((signal.SIGINT, 10), (signal.SIGQUIT, 5), (signal.SIGKILL, 5))
PORT_TRIES = 3


class PortTaken(DevServerError):
    """Another program listens on the development server's port."""


def default_folder() -> Path:
    """Return the folder of `pgjobq dev`: in the user's data folder, or in /var/lib for root, whose home is private."""
    if base := os.environ.get("XDG_DATA_HOME"):
        return Path(base) / "pgjobq" / "dev"
    if os.geteuid() == 0:
        return Path("/var/lib/pgjobq/dev")
    return Path.home() / ".local" / "share" / "pgjobq" / "dev"


class DevServer:
    """A PostgreSQL server that runs from start to stop. It is also a context manager.

    It listens only on 127.0.0.1, and requires a password.

    data_dir: the folder for the server's files, password and port. The DSN is the same at the next start. None means a
    temporary folder, which stop removes. durable: keep fsync on. Without it the server is faster, but a crash of the
    machine may lose data. settings: PostgreSQL settings. environment: additional environment variables of the server.

    If this process is root, the server runs as the user postgres or nobody, because PostgreSQL refuses root. While it
    runs, SIGTERM raises KeyboardInterrupt unless the program handles SIGTERM. The server ends when the thread that
    started it ends.
    """

    _started: ClassVar[set[DevServer]] = set()

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        durable: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.dsn = ""
        self.version = ""  # PostgreSQL's version, such as 18.6, after the start
        self._given_port, self._settings, self._durable = port, dict(settings or {}), durable
        self._environment = dict(environment or {})
        self._given_folder = ServerFolder(data_dir.absolute()) if data_dir is not None else None
        self._folder = self._given_folder
        self._process: subprocess.Popen[bytes] | None = None
        self._bindir = Path()
        self._identity: Identity = {}
        self._owner = 0  # the process that started the server

    @property
    def folder(self) -> Path | None:
        """The folder of the server's files; None for a temporary one that is not there."""
        return self._folder.path if self._folder is not None else None

    @property
    def pid(self) -> int | None:
        """The server's process id, None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Start the server and wait until it answers. DevServerRunning when one runs in the folder already."""
        if self.pid is not None:
            return self
        self._owner = os.getpid()
        atexit.register(self.stop)
        self._started.add(self)
        _handle_sigterm(wanted=True)
        try:
            self._start()
        except OSError as error:
            self.stop()
            raise DevServerError(f"the server could not be started: {error}") from error
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        found = programs.find_bindir()
        self._identity = programs.unprivileged()
        folder = self._take_folder()
        self._bindir = programs.reachable(found, folder.path, self._identity)
        self.version = programs.version(self._bindir, self._identity)
        password = folder.password()
        if not folder.data.exists():
            self._init(folder)
        for attempt in range(1, PORT_TRIES + 1):
            # Try the port of the last start only once, because another program may use it now.
            port = self._given_port or (folder.port() if attempt == 1 else None) or _free_port()
            try:
                self._launch(folder, port)
                break
            except PortTaken:
                if self._given_port or attempt == PORT_TRIES:
                    raise
        self.dsn = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        folder.write("port", str(port))
        folder.write("dsn", self.dsn)

    def _take_folder(self) -> ServerFolder:
        if self._given_folder is not None:
            self._given_folder.take(self._identity)
            return self._given_folder
        for place in temporary_places():
            sweep(place.path.parent)
            self._folder = place  # set before the folder is created, so that stop() always finds it
            with suppress(OSError):
                place.take(self._identity)
                return place
            place.give_back()
        raise DevServerError("the server's user cannot access any folder for temporary files; set TMPDIR")

    def _init(self, folder: ServerFolder) -> None:
        """Create the database files, and rename them when they are complete."""
        made = folder.run / "data.new"
        remove(made)
        secret = folder.write("run/pw", folder.password())
        if self._identity:
            os.chown(secret, self._identity["user"], self._identity["group"])
        options = ["-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(secret), "-E", "UTF8", "--no-locale"]
        process = self._spawn(folder, "initdb", "-D", str(made), "--no-sync", *options)
        try:
            failed = process.wait() != 0
        finally:
            _end(process)
            secret.unlink(missing_ok=True)
        if failed:
            raise DevServerError(f"initdb failed:\n{folder.log_tail()}")
        made.rename(folder.data)

    def _launch(self, folder: ServerFolder, port: int) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "200",
            **({} if self._durable else {"fsync": "off", "full_page_writes": "off"}),
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = self._spawn(folder, "postgres", "-D", str(folder.data), *options, **self._environment)
        deadline = time.monotonic() + START_TIMEOUT
        while folder.live_pid(ready=True) != self._process.pid:
            if self._process.poll() is not None:
                told = folder.log_tail()
                kind = PortTaken if "could not bind" in told else DevServerError
                raise kind(f"the server did not start on port {port}:\n{told}")
            if time.monotonic() > deadline:
                raise DevServerError(f"the server did not answer for {START_TIMEOUT:.0f} seconds:\n{folder.log_tail()}")
            time.sleep(0.01)

    def _spawn(self, folder: ServerFolder, program: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        log = folder.run / "log"
        with log.open("wb") as output:  # a file, because something would have to read a pipe
            return subprocess.Popen(
                [str(self._bindir / program), *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=False,
                cwd=folder.run, env=programs.environment(folder.run) | variables,
                start_new_session=True,  # this process handles Ctrl-C on the terminal
                preexec_fn=die_with_parent,  # noqa: PLW1509  # a single prctl call, which takes no lock
                **self._identity,
            )  # fmt: skip

    def stop(self) -> None:
        """Stop the server, and remove its folder if it is temporary. Can be called again, also after an interrupt."""
        if self._owner != os.getpid():
            return  # the server was not started, or this is a fork of the process that started it
        if self._process is not None:
            _end(self._process)
            self._process = None
        if self._folder is not None:
            self._folder.give_back()
        self._folder = self._given_folder
        atexit.unregister(self.stop)
        self._started.discard(self)
        if not self._started:
            _handle_sigterm(wanted=False)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _handle_sigterm(*, wanted: bool) -> None:
    """Make SIGTERM raise KeyboardInterrupt, because by default it would kill the program before any cleanup."""
    if threading.current_thread() is not threading.main_thread():
        return  # Python allows this only in the main thread
    now = signal.getsignal(signal.SIGTERM)
    if wanted and now is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    elif not wanted and now is _interrupt:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in STOPPING:
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
