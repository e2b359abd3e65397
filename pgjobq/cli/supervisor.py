"""Worker processes: a supervisor forks them, replaces those that die, and passes the end on.

It forks while it has one thread, no connection and none of the user's modules: each child imports those and connects
for itself. What pgjobq itself needs is imported before, and its memory shared. A socket pair joins the supervisor to
each child. The child says on it that it works; the supervisor tells it to stop; and when the supervisor is gone, killed
even, the child reads the end of the stream, and stops in good order too.
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
PROVEN_AFTER = 60.0  # seconds of life after which the backoff begins anew
READY, STOP, HURRY = b"r", b"s", b"h"


class Line:
    """A child's line to its supervisor. number: which of the processes it is, from 1."""

    def __init__(self, number: int, end: socket.socket) -> None:
        self.number = number
        self._end = end
        self._stop: Callable[[bool], None] | None = None
        threading.Thread(target=self._listen, name="pgjobq-line", daemon=True).start()

    def ready(self, stop: Callable[[bool], None]) -> None:
        """Say that this process works; stop(hurry) is called, in another thread, when it should end."""
        self._stop = stop
        with suppress(OSError):
            self._end.send(READY)

    def _listen(self) -> None:
        while True:
            word = self._end.recv(1)
            if not word:
                log.warning("supervisor.gone")
            if self._stop is None:
                os.kill(os.getpid(), signal.SIGTERM)  # nothing has been claimed yet
            else:
                self._stop(word == HURRY)
            if not word:
                return


class _Child:
    """One place among the processes: who has it, or when the next one may."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid, self.end, self.ready = 0, socket.socket(), False
        self.started_at, self.due_at, self.delay = 0.0, 0.0, 0.0


class Supervisor:
    """run() returns in each child with its Line; in the supervisor with None, when all is over.

    The second process is started when the first one works: what is wrong with all of them ends the supervisor, with
    the first one's exit status.
    """

    def __init__(self, processes: int) -> None:
        self.status, self._pid = 0, os.getpid()
        self._children = [_Child(number) for number in range(1, processes + 1)]
        self._proven = False  # whether one has worked
        self._heard, self._told = StopSignals(), 0  # how often it was told to stop, and passed that on

    def run(self) -> Line | None:
        """Fork the processes, and watch over them until SIGTERM or SIGINT. A second signal has them hurry.

        Signals within a second of the first count as one with it.
        """
        gc.freeze()  # a collection in a child would write to, and so copy, the pages it shares
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
        """The children to start, now or when they are due: one alone, until one has worked."""
        wanted = self._children if self._proven else self._children[:1]
        return [] if self._told else [child for child in wanted if not child.pid]

    def _start_due(self) -> Line | None:
        """Fork the children that are due; in a child, its line."""
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
        # Until the child has let go of our handlers, a signal to it would count as one to us.
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
            other.end.close()  # held here, it would never end for the others
        return Line(child.number, theirs)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:  # as process 1, others' orphans too
                for child in self._children:
                    if child.pid == ended[0]:
                        self._ended(child, os.waitstatus_to_exitcode(ended[1]))

    def _ended(self, child: _Child, status: int) -> None:
        child.end.close()
        how = {"signal": _named(-status)} if status < 0 else {"status": status}
        extra = {"worker": child.number, "pid": child.pid, **how}
        child.pid = 0
        if self._told:
            is_fine = status in (0, EXIT_INTERRUPTED, -signal.SIGTERM)  # the last two: before it began to work
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
        """Pass the signals on. By the line: from a terminal or systemd the children get the signal itself too."""
        self._told = self._heard.count
        for child in self._children:
            with suppress(OSError):
                child.end.send(STOP if self._told == 1 else HURRY)

    def _wait(self, woken: socket.socket) -> None:
        """Until a signal, a child that is ready, or one that is due."""
        starting = [child for child in self._children if child.pid and not child.ready]
        due = min((child.due_at for child in self._missing()), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        readable, _, _ = select.select([woken, *(child.end for child in starting)], [], [], timeout)
        if woken in readable:
            woken.recv(4096)
        for child in starting:
            if child.end in readable:
                child.ready = True  # or dead, which the next look tells
                with suppress(OSError):
                    self._proven = child.end.recv(1) == READY or self._proven

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Hear the signals; the socket is readable when one came. A child leaves it as the supervisor came."""
        woken, waker = socket.socketpair()
        waker.setblocking(False)
        before = {number: signal.signal(number, self._heard.hear) for number in SIGNALS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(-1)
            # The supervisor itself goes on hearing, until its end: a late signal must not kill it.
            for number, handler in before.items() if os.getpid() != self._pid else ():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # in a child: they were blocked for the fork
            woken.close()
            waker.close()


def _named(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)
