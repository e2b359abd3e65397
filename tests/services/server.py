"""A server's life: a folder, a port, a process, and the end of all three."""

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
STOPPING = ((signal.SIGTERM, 15), (signal.SIGKILL, 5))  # seconds for each
PORT_TRIES = 3
DIE_WITH_US = partial(die_with_parent, signal.SIGKILL)  # mariadbd takes no notice of SIGINT


class ServiceMissing(Exception):
    """The server's program is not installed."""


class ServerFailed(Exception):
    """The server did not start."""


class Server(ABC):
    """A server on 127.0.0.1, with data of its own; a context manager.

    durable: what it acknowledged is still there after kill() and start(). Without, it may be quicker.
    """

    name: ClassVar[str]  # as people know it

    def __init__(self, *, durable: bool = False) -> None:
        self.durable = durable
        self.port = 0
        self._folder: ServerFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # -- what a kind of server has -------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def check(cls) -> None:
        """Raise ServiceMissing when a program that it needs is not there."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it, with the password if it has one."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What to run; the first word is the program's name for itself."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does what clients ask. OSError is no."""

    def program(self) -> str | None:
        """The file to run, where it has another name than the command's first word."""
        return None

    def prepare(self) -> None:
        """Make the files that it needs, before its first start."""

    def identity(self) -> Identity:
        """The user that it runs as; empty: as this process."""
        return {}

    # -- its life ------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Its folder, which it can write to."""
        assert self._folder is not None, f"{self.name} was not started"
        return self._folder.run

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Start it and wait until it answers. After kill() or halt(): on the same port, with the data it kept."""
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
        raise ServerFailed(f"there is no folder for temporary files that {self.name}'s user gets to; set TMPDIR")

    def _start(self) -> None:
        tries = 1 if self.port else PORT_TRIES  # a port just found free may be taken meanwhile
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
        """Run a program in the folder, as the server's user; what it prints goes to the log."""
        home = str(self.folder)
        with (self.folder / "log").open("ab") as output:
            return subprocess.Popen(
                command, executable=program,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=home, env={**self.environment(), "HOME": home, "TMPDIR": home, "LC_ALL": "C"},
                start_new_session=True,  # Ctrl-C on the terminal is pytest's
                preexec_fn=DIE_WITH_US,  # noqa: PLW1509  # one prctl, which takes no lock
                **self.identity(),
            )  # fmt: skip

    def environment(self) -> Mapping[str, str]:
        """The variables that its programs get."""
        return {"PATH": os.environ.get("PATH", os.defpath)}

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that it printed."""
        with suppress(OSError):
            return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-lines:])
        return ""

    def kill(self) -> None:
        """End it as a power cut would; start() brings it back."""
        self._end([(signal.SIGKILL, 10)])

    def halt(self) -> None:
        """End it in good order; start() brings it back."""
        self._end(STOPPING)

    def freeze(self) -> None:
        """Keep it from doing anything, until thaw(): its clients wait for answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it, and remove its folder. Safe to call again."""
        # Nothing is kept; good order would only take time.
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
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connection(port: int) -> socket.socket:
    """A connection to the server on this port; OSError when there is none."""
    return socket.create_connection(("127.0.0.1", port), timeout=5)
