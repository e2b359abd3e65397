"""A supervisor forks the worker processes, replaces those that die, and passes stop signals on to them.

The supervisor has one thread and no connection, and does not import the user's modules. Each child imports them and
connects itself. The supervisor imports pgjobq's own modules before it forks, so that the children share their memory.
A socket pair connects the supervisor with each child. The child reports on it that it is ready, and the supervisor
tells the child to stop. If the supervisor dies, even by SIGKILL, the child reads the end of the stream and stops in
order.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pgjobq.cli.common import EXIT_INTERRUPTED
from pgjobq.events import EventLog
from pgjobq.explaining import safe_text
from pgjobq.signals import SIGNALS, StopSignals

log = EventLog("pgjobq.supervisor")

BACKOFF_MIN, BACKOFF_MAX = 1.0, 30.0  # seconds before a dead child is replaced
PROVEN_AFTER = 60.0  # seconds; if a child lived for this long, the backoff starts again
READY, STOP, HURRY = b"r", b"s", b"h"


class Line:
    """A child's connection to its supervisor. number: the number of the process, from 1."""

    def __init__(self, number: int, end: socket.socket) -> None:
        self.number = number
        self._end = end
        self._stop: Callable[[bool], None] | None = None
        threading.Thread(target=self._listen, name="pgjobq-line", daemon=True).start()

    def ready(self, stop: Callable[[bool], None]) -> None:
        """Report that this process is ready. Another thread calls stop(hurry) when the process should end."""
        self._stop = stop
        with suppress(OSError):
            self._end.send(READY)

    def _listen(self) -> None:
        while True:
            word = self._end.recv(1)
            if not word:
                log.warning("supervisor.gone")
            if self._stop is None:
                os.kill(os.getpid(), signal.SIGTERM)  # the worker has not claimed anything yet
            else:
                self._stop(word == HURRY)
            if not word:
                return


class _Child:
    """One of the numbered worker processes, and when to start its successor if it has died."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid, self.end, self.ready = 0, socket.socket(), False
        self.started_at, self.due_at, self.delay = 0.0, 0.0, 0.0


class Supervisor:
    """Forks and watches worker processes. run() returns its Line in each child, and None in the supervisor at the end.

    The supervisor starts the other processes when the first is ready. If the first process fails to start, the
    supervisor ends with its exit status, because the others would fail too.
    """

    def __init__(self, processes: int) -> None:
        self.status, self._pid = 0, os.getpid()
        self._children = [_Child(number) for number in range(1, processes + 1)]
        self._proven = False  # whether a process has ever been ready
        self._heard, self._told = StopSignals(), 0  # the stop signals, and how many of them were passed on

    def run(self) -> Line | None:
        """Fork the processes, and watch them until SIGTERM or SIGINT. A second signal makes them stop at once.

        Signals within a second of the first count as one.
        """
        gc.freeze()  # otherwise a collection in a child would write to shared pages, and so copy them
        with self._signals() as woken:
            while True:
                self._reap()
                for name in self._heard.untold():
                    log.info("supervisor.signal", extra={"signal": name})
                if self._heard.count > self._told:
                    self._tell()
                if (self._told or self.status) and not any(child.pid for child in self._children):
                    return None
                if (line := self._start_due()) is not None:
                    return line
                self._wait(woken)

    def _missing(self) -> list[_Child]:
        """Return the children to start, now or when they are due. Only the first, until a process has been ready."""
        wanted = self._children if self._proven else self._children[:1]
        return [] if self._told else [child for child in wanted if not child.pid]

    def _start_due(self) -> Line | None:
        """Fork the children that are due. In a child, returns its line."""
        now = time.monotonic()
        for child in self._missing():
            if child.due_at <= now:
                try:
                    line = self._fork(child)
                except OSError as error:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                    log.error("process.not_started", extra={"worker": child.number, "error": safe_text(error)})
                    self._schedule(child, 0.0)
                    continue
                if line is not None:
                    return line
        return None

    def _fork(self, child: _Child) -> Line | None:
        ours, theirs = socket.socketpair()
        # Until the child has restored the handlers, the supervisor's would swallow a signal to the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if pid := os.fork():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            theirs.close()
            ours.setblocking(False)
            child.pid, child.end, child.ready, child.started_at = pid, ours, False, time.monotonic()
            log.info("process.started", extra={"worker": child.number, "pid": pid})
            return None
        ours.close()
        for other in self._children:
            other.end.close()  # if this child held it open, the other child would never read the end of its stream
        return Line(child.number, theirs)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:  # process 1 reaps orphans of other processes too
                for child in self._children:
                    if child.pid == ended[0]:
                        self._ended(child, os.waitstatus_to_exitcode(ended[1]))

    def _ended(self, child: _Child, status: int) -> None:
        child.end.close()
        how = {"signal": _named(-status)} if status < 0 else {"status": status}
        extra = {"worker": child.number, "pid": child.pid, **how}
        child.pid = 0
        if self._told:
            is_fine = status in (0, EXIT_INTERRUPTED, -signal.SIGTERM)  # the last two: before it was ready
            self.status |= not is_fine
            log.log(logging.INFO if is_fine else logging.ERROR, "process.ended", extra=extra)
        elif not self._proven:
            self.status = max(status, 0) or 1
            log.error("process.not_started", extra=extra)
        else:
            self._schedule(child, time.monotonic() - child.started_at)
            log.warning("process.ended", extra={**extra, "retry_in": child.delay})

    def _schedule(self, child: _Child, lived: float) -> None:
        child.delay = BACKOFF_MIN if lived >= PROVEN_AFTER else min(max(child.delay * 2, BACKOFF_MIN), BACKOFF_MAX)
        child.due_at = time.monotonic() + child.delay

    def _tell(self) -> None:
        """Pass the signals on over the lines. A terminal or systemd also sends the signal itself to the children."""
        self._told = self._heard.count
        for child in self._children:
            with suppress(OSError):
                child.end.send(STOP if self._told == 1 else HURRY)

    def _wait(self, woken: socket.socket) -> None:
        """Wait for a signal, for a message from a starting child, or until a child is due."""
        starting = [child for child in self._children if child.pid and not child.ready]
        due = min((child.due_at for child in self._missing()), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        readable, _, _ = select.select([woken, *(child.end for child in starting)], [], [], timeout)
        if woken in readable:
            woken.recv(4096)
        for child in starting:
            if child.end in readable:
                child.ready = True  # or dead, which _reap() finds out
                with suppress(OSError):
                    self._proven = child.end.recv(1) == READY or self._proven

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Handle the signals; each makes the socket readable. A child restores the earlier handlers on exit."""
        woken, waker = socket.socketpair()
        waker.setblocking(False)
        before = {number: signal.signal(number, self._heard.hear) for number in SIGNALS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(-1)
            # The supervisor keeps its handlers until it ends, because a late signal must not kill it.
            for number, handler in before.items() if os.getpid() != self._pid else ():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a child inherits the signals blocked for the fork
            woken.close()
            waker.close()


def _named(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)
