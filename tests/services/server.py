"""The base class of servers: it manages a server's folder, port and process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from pgjobq.devserver import die_with_parent
from pgjobq.devserver.folder import ServerFolder, sweep, temporary_places
from pgjobq.devserver.programs import Identity

START_TIMEOUT = 60.0  # seconds; Java on a busy machine takes 20
STOPPING = ((signal.SIGTERM, 15), (signal.SIGKILL, 5))  # with the seconds to wait after each
PORT_TRIES = 3
DIE_WITH_US = partial(die_with_parent, signal.SIGKILL)  # mariadbd ignores SIGINT


class ServiceMissing(Exception):
    """The server's program is not installed."""


class ServerFailed(Exception):
    """The server did not start."""


class Server(ABC):
    """A server on 127.0.0.1 with its own data. It is a context manager.

    durable: acknowledged data survives kill() and start(). A server that is not durable may be faster.
    """

    name: ClassVar[str]  # for messages

    def __init__(self, *, durable: bool = False) -> None:
        self.durable = durable
        self.port = 0
        self._folder: ServerFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # -- methods of the subclasses ------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def check(cls) -> None:
        """Raise ServiceMissing if a program that the server needs is not installed."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the URL for clients, with the password if there is one."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command. Its first word is passed to the program as argv[0]."""

    @abstractmethod
    def answers(self) -> bool:
        """Return whether the server accepts requests. An OSError also means that it does not."""

    def program(self) -> str | None:
        """Return the file to execute, or None if it is the first word of the command."""
        return None

    def prepare(self) -> None:
        """Create the files that the server needs before its first start."""

    def identity(self) -> Identity:
        """Return the user to run as. An empty result means the user of this process."""
        return {}

    # -- starting, stopping --------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Return the server's folder, which it can write to."""
        assert self._folder is not None, f"{self.name} was not started"
        return self._folder.run

    @property
    def pid(self) -> int | None:
        """Return the process id, or None if the server is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Start the server and wait until it answers. After kill() or halt() it has the same port and data as before."""
        if self.pid is not None:
            return self
        self.check()
        try:
            if self._folder is None:
                self._take_folder()
                self.prepare()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _take_folder(self) -> None:
        for place in temporary_places():
            sweep(place.path.parent)
            self._folder = place
            with suppress(OSError):
                place.take(self.identity())
                return
            place.give_back()
        raise ServerFailed(f"the user of {self.name} has no access to any folder for temporary files; set TMPDIR")

    def _start(self) -> None:
        tries = 1 if self.port else PORT_TRIES  # another process may take a free port before the server does
        for left in reversed(range(tries)):
            self.port = self.port or free_port()
            self._process = self.spawn(*self.command(), program=self.program())
            if self._comes_up(self._process):
                return
            if not left:
                raise ServerFailed(f"{self.name} did not start on port {self.port}:\n{self.log_tail()}")
            self.port = 0

    def _comes_up(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_TIMEOUT
        while process.poll() is None:
            with suppress(OSError):
                if self.answers():
                    return True
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} gave no answer for {START_TIMEOUT:.0f} seconds:\n{self.log_tail()}")
            time.sleep(0.02)
        return False

    def spawn(self, *command: str, program: str | None = None) -> subprocess.Popen[bytes]:
        """Run a program in the folder as the server's user. Its output goes to the log."""
        home = str(self.folder)
        with (self.folder / "log").open("ab") as output:
            return subprocess.Popen(
                command, executable=program,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=home, env={**self.environment(), "HOME": home, "TMPDIR": home, "LC_ALL": "C"},
                start_new_session=True,  # so that Ctrl-C on the terminal reaches only pytest
                preexec_fn=DIE_WITH_US,  # noqa: PLW1509  # one prctl, which takes no lock
                **self.identity(),
            )  # fmt: skip

    def environment(self) -> Mapping[str, str]:
        """Return the environment variables of the server's programs."""
        return {"PATH": os.environ.get("PATH", os.defpath)}

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        with suppress(OSError):
            return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-lines:])
        return ""

    def kill(self) -> None:
        """End the server with SIGKILL. start() can start it again."""
        self._end([(signal.SIGKILL, 10)])

    def halt(self) -> None:
        """Shut the server down with SIGTERM. start() can start it again."""
        self._end(STOPPING)

    def freeze(self) -> None:
        """Suspend the server until thaw(). Its clients wait for answers meanwhile."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume a suspended server."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)

    def stop(self) -> None:
        """End the server and remove its folder. It can be called more than once."""
        # An orderly shutdown would only take time, because the data is deleted anyway.
        self._end([(signal.SIGKILL, 10)])
        if self._folder is not None:
            self._folder.give_back()
            self._folder = None

    def _end(self, steps: Sequence[tuple[int, float]]) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number, seconds in steps:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                return

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """Return a port of 127.0.0.1 on which no process listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connection(port: int) -> socket.socket:
    """Connect to the server on this port. Raise OSError if there is none."""
    return socket.create_connection(("127.0.0.1", port), timeout=5)
