"""The process of an isolated handler, and the two pipes between it and the worker."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from pgjobq.forks import close_in_child
from pgjobq.worker.relay import CHUNK

CHUNKS = 64  # read at once
MAX_LINE = 64 * 2**20  # bytes; nothing is read after a longer line
_BOOT = "import sys; sys.path[:] = {path!r}; sys.argv[:] = {argv!r}; from pgjobq.worker.child import main; main{fds!r}"


class _End:
    """The worker's end of a pipe. A fork of the worker closes its copy, because only the worker's own must count."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        os.set_blocking(fd, False)
        close_in_child(self)

    def fileno(self) -> int:
        """Return the descriptor. Raises ValueError if it is closed."""
        if self._fd is None:
            raise ValueError("the end of the pipe is closed")
        return self._fd

    def close(self) -> None:
        """Close it, once."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class Pipes:
    """Starts a process, sends it the parcel, and reads its messages, without blocking for longer than it is told to.

    The pipe for the parcel stays open until the end of the `with` block. When it closes because the worker has died,
    the process is killed.
    """

    def __init__(self, parcel: bytes) -> None:
        self._parcel, self._text, self.is_at_end = parcel, b"", False
        self._selector = selectors.PollSelector()

    def __enter__(self) -> Self:
        self._parcel_fd, ours = os.pipe()
        self._to_process = _End(ours)
        try:
            ours, self._answers_fd = os.pipe()
        except OSError:
            os.close(self._parcel_fd)
            self._to_process.close()
            raise
        self._from_process = _End(ours)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close_theirs()
        self._to_process.close()
        self._from_process.close()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process, in a process group of its own, so that a Ctrl-C at the terminal does not reach it."""
        fds = (self._parcel_fd, self._answers_fd)
        # As multiprocessing does it: the options of this interpreter, and its module path.
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
        boot = _BOOT.format(path=sys.path, argv=getattr(sys, "argv", [""]), fds=fds)
        process = subprocess.Popen(  # noqa: S603  # this interpreter
            [sys.executable, *flags, "-c", boot], pass_fds=fds, stdin=subprocess.DEVNULL, process_group=0
        )
        self._close_theirs()
        self._selector.register(self._from_process, selectors.EVENT_READ)
        self._selector.register(self._to_process, selectors.EVENT_WRITE)
        return process

    def read(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Wait for messages for at most these seconds. Yield those that are there, and send what can be sent."""
        if self.is_at_end and not self._parcel:
            return
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._to_process:
                self._write()
            else:
                yield from self._messages()

    def _write(self) -> None:
        try:
            self._parcel = self._parcel[os.write(self._to_process.fileno(), self._parcel) :]
        except BlockingIOError:
            pass
        except OSError:  # the process has ended or has closed its end
            self._parcel = b""
        if not self._parcel:
            self._selector.unregister(self._to_process)

    def _messages(self) -> Iterator[dict[str, Any]]:
        for _ in range(CHUNKS):
            try:
                chunk = os.read(self._from_process.fileno(), CHUNK)
            except BlockingIOError:
                break
            if not chunk or len(self._text) > MAX_LINE:
                self.is_at_end = True
                self._selector.unregister(self._from_process)
                break
            *lines, self._text = (self._text + chunk).split(b"\n")
            yield from filter(None, map(_message, lines))

    def _close_theirs(self) -> None:
        for fd in (self._parcel_fd, self._answers_fd):
            if fd >= 0:
                os.close(fd)
        self._parcel_fd = self._answers_fd = -1


def _message(line: bytes) -> dict[str, Any] | None:
    """Read a message. The handler may write anything into its process's end, which is then ignored."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
