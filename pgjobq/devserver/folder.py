"""Manage the folder of a server: its lock, its contents, and the removal of temporary folders.

The folder contains:
- `lock`, a file that is locked while a server starts, runs or stops
- `password` and `port`, which the next start uses again
- `dsn`, while the server answers
- `temporary`, which marks a temporary folder
- `run`, which belongs to the server, with its data and its log
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

PREDECESSOR_TIMEOUT = 10.0  # seconds to wait for the server of a killed process to end
REMOVE_TIMEOUT = 3.0  # seconds for which an interrupted initdb may continue to write


class DevServerRunning(DevServerError):
    """A development server already runs in this folder."""

    def __init__(self, message: str, dsn: str) -> None:
        super().__init__(message)
        self.dsn = dsn


class ServerFolder:
    """A folder that one process at a time holds, from take to give_back."""

    def __init__(self, path: Path, *, temporary: bool = False) -> None:
        self.path, self.run, self.data = path, path / "run", path / "run" / "data"
        self.temporary = temporary
        self._lock: IO[Any] | None = None

    def take(self, identity: Identity) -> None:
        """Create and lock the folder. Raises PermissionError if the user of identity cannot access it."""
        self.path.mkdir(mode=0o700, parents=not self.temporary, exist_ok=not self.temporary)
        self._take_lock()
        if self.temporary:
            (self.path / "temporary").touch()
        self.run.mkdir(exist_ok=True)
        if identity:
            self.path.chmod(0o711)  # the server's user must be able to enter the folder, but not to list it
            os.chown(self.run, identity["user"], identity["group"])
        self.run.chmod(0o700)
        if not programs.can_write(self.run, identity):
            user = identity.get("user", os.geteuid())
            raise PermissionError(f"user id {user} cannot access {self.path}; use another folder")
        self._wait_for_predecessor()

    def _take_lock(self) -> None:
        lock = (self.path / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            with suppress(OSError):
                dsn = (self.path / "dsn").read_text().strip()
                raise DevServerRunning(f"a server already runs in {self.path}: {dsn}", dsn) from None
            raise DevServerRunning(f"a server is starting in {self.path}; try again", "") from None
        self._lock = lock

    def _wait_for_predecessor(self) -> None:
        """Wait for the server of a killed process to end. If it does not, PostgreSQL itself refuses to start."""
        deadline = time.monotonic() + PREDECESSOR_TIMEOUT
        while self.live_pid() is not None and time.monotonic() < deadline:
            time.sleep(0.02)

    def give_back(self) -> None:
        """Unlock the folder, and remove it if it is temporary. Leaves a folder that another process holds unchanged."""
        if self.temporary:
            remove(self.path)  # even without the lock, because its name is random
        if self._lock is not None:
            (self.path / "dsn").unlink(missing_ok=True)
            self._lock.close()  # last, because another start may then use the folder
            self._lock = None

    def password(self) -> str:
        """Return the password. Creates it at the first start and keeps it."""
        if not (self.path / "password").exists():
            self.write("password", secrets.token_urlsafe(18))
        return (self.path / "password").read_text().strip()

    def port(self) -> int | None:
        """Return the port of the last server, or None."""
        with suppress(OSError, ValueError):
            return int((self.path / "port").read_text())
        return None

    def write(self, name: str, text: str) -> Path:
        """Write a file atomically. Only its owner can read it."""
        new = (self.path / name).with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(text + "\n")
        return new.rename(self.path / name)

    def live_pid(self, *, ready: bool = False) -> int | None:
        """Return the live process that postmaster.pid names, or None. ready: only if it accepts connections."""
        with suppress(OSError, ValueError, IndexError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            with suppress(PermissionError):  # the process of another user, so it is alive
                os.kill(int(lines[0]), 0)
            if not ready or lines[7].strip() == "ready":
                return int(lines[0])
        return None

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the log, indented."""
        with suppress(OSError):
            text = (self.run / "log").read_text(errors="replace")
            return re.sub(r"(?m)^", "  ", "\n".join(text.splitlines()[-lines:]))
        return ""


def temporary_root() -> Path:
    """Return the folder for temporary files. Blocks signals, because tempfile creates a test file there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        return Path(tempfile.gettempdir())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def temporary_places() -> list[ServerFolder]:
    """Return new folders to try in turn, because the server's user may not be able to access TMPDIR."""
    places = dict.fromkeys((str(temporary_root()), "/var/tmp", "/tmp"))  # noqa: S108  # the name is random
    return [ServerFolder(Path(place) / f"pgjobq-{secrets.token_hex(6)}", temporary=True) for place in places]


def sweep(parent: Path) -> None:
    """Remove the temporary folders that killed processes of this user have left behind."""
    for marker in parent.glob("pgjobq-*/temporary"):
        folder = ServerFolder(marker.parent)
        with suppress(OSError):
            if folder.path.lstat().st_uid == os.geteuid():
                with (folder.path / "lock").open("r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if folder.live_pid() is None:
                        remove(folder.path)


def remove(path: Path) -> None:
    """Remove a folder, even if a process that is ending still writes to it."""
    deadline = time.monotonic() + REMOVE_TIMEOUT
    shutil.rmtree(path, ignore_errors=True)
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
        shutil.rmtree(path, ignore_errors=True)
