"""A server's folder: who holds it, what is kept in it, and that nothing of a temporary one is left behind.

Beside `lock`, held while a server is started, runs or is stopped, it holds the `password` and the `port` for the next
start, the `dsn` while the server answers, the mark `temporary`, and `run`, the server's own: its data and its log.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pgjobq.devserver import programs
from pgjobq.devserver.programs import DevServerError, Identity

PREDECESSOR_TIMEOUT = 10.0  # seconds that the server of a killed process has to end
REMOVE_TIMEOUT = 3.0  # seconds that an interrupted initdb may go on writing


class DevServerRunning(DevServerError):
    """A development server runs in this folder already."""

    def __init__(self, message: str, dsn: str) -> None:
        super().__init__(message)
        self.dsn = dsn


class ServerFolder:
    """A folder, held from take to give_back by one process at a time."""

    def __init__(self, path: Path, *, temporary: bool = False) -> None:
        self.path, self.run, self.data = path, path / "run", path / "run" / "data"
        self.temporary = temporary
        self._lock: IO[Any] | None = None

    def take(self, identity: Identity) -> None:
        """Make it and hold it. PermissionError when that user does not get through to it."""
        self.path.mkdir(mode=0o700, parents=not self.temporary, exist_ok=not self.temporary)
        self._take_lock()
        if self.temporary:
            (self.path / "temporary").touch()
        self.run.mkdir(exist_ok=True)
        if identity:
            self.path.chmod(0o711)  # the server's user must get through, not look
            os.chown(self.run, identity["user"], identity["group"])
        self.run.chmod(0o700)
        if not programs.can_write(self.run, identity):
            user = identity.get("user", os.geteuid())
            raise PermissionError(f"user id {user} does not get through to {self.path}; give another folder")
        self._wait_for_predecessor()

    def _take_lock(self) -> None:
        lock = (self.path / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            with suppress(OSError):
                dsn = (self.path / "dsn").read_text().strip()
                raise DevServerRunning(f"a server runs in {self.path} already: {dsn}", dsn) from None
            raise DevServerRunning(f"a server is starting in {self.path}; try again", "") from None
        self._lock = lock

    def _wait_for_predecessor(self) -> None:
        """Let the server of a killed process end. One that does not is PostgreSQL's to judge: it knows better."""
        deadline = time.monotonic() + PREDECESSOR_TIMEOUT
        while self.live_pid() is not None and time.monotonic() < deadline:
            time.sleep(0.02)

    def give_back(self) -> None:
        """Let go of it, and remove a temporary one. Nothing happens to a folder that another holds."""
        if self.temporary:
            remove(self.path)  # held or not: its name is ours alone, and an interrupt may have come before the lock
        if self._lock is not None:
            (self.path / "dsn").unlink(missing_ok=True)
            self._lock.close()  # last: until then no other start looks into the folder
            self._lock = None

    def password(self) -> str:
        """The password, kept for the next start."""
        if not (self.path / "password").exists():
            self.write("password", secrets.token_urlsafe(18))
        return (self.path / "password").read_text().strip()

    def port(self) -> int | None:
        """The last server's port."""
        with suppress(OSError, ValueError):
            return int((self.path / "port").read_text())
        return None

    def write(self, name: str, text: str) -> Path:
        """Write a file, all of it or nothing, for the owner's eyes."""
        new = (self.path / name).with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(text + "\n")
        return new.rename(self.path / name)

    def live_pid(self, *, ready: bool = False) -> int | None:
        """The living process that postmaster.pid names; ready: once it takes connections."""
        with suppress(OSError, ValueError, IndexError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            with suppress(PermissionError):  # somebody else's, and so alive
                os.kill(int(lines[0]), 0)
            if not ready or lines[7].strip() == "ready":
                return int(lines[0])
        return None

    def log_tail(self, lines: int = 15) -> str:
        """The log's last lines, indented."""
        with suppress(OSError):
            text = (self.run / "log").read_text(errors="replace")
            return re.sub(r"(?m)^", "  ", "\n".join(text.splitlines()[-lines:]))
        return ""


def temporary_root() -> Path:
    """The folder for temporary files. Signals wait: tempfile tries it with a file, and interrupted would leave that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        return Path(tempfile.gettempdir())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def temporary_places() -> list[ServerFolder]:
    """Folders that do not exist yet, to try in turn: TMPDIR may lie where the server's user does not get through."""
    places = dict.fromkeys((str(temporary_root()), "/var/tmp", "/tmp"))  # noqa: S108  # under a name that is new
    return [ServerFolder(Path(place) / f"pgjobq-{secrets.token_hex(6)}", temporary=True) for place in places]


def sweep(parent: Path) -> None:
    """Remove the temporary folders of this user's processes that were killed: nobody holds them any more."""
    for marker in parent.glob("pgjobq-*/temporary"):
        folder = ServerFolder(marker.parent)
        with suppress(OSError):
            if folder.path.lstat().st_uid == os.geteuid():
                with (folder.path / "lock").open("r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if folder.live_pid() is None:
                        remove(folder.path)


def remove(path: Path) -> None:
    """Remove a folder that a process which is ending may still write to."""
    deadline = time.monotonic() + REMOVE_TIMEOUT
    shutil.rmtree(path, ignore_errors=True)
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
        shutil.rmtree(path, ignore_errors=True)
