"""Parts that both demos share: the worker process, the folder for the invoices, and the handling of signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pgjobq.devserver import die_with_parent
from pgjobq.signals import SIGNALS

HERE = Path(__file__).parent
PACE = 0.008  # seconds between two orders
PATIENCE = 30.0  # seconds without progress after which the demo gives up

Process = subprocess.Popen[bytes]


class Folder:
    """The folder for the invoices. done: whether every order has its invoice."""

    def __init__(self) -> None:
        self.path = Path()
        self.done = False

    def files(self) -> int:
        """Return the number of invoices."""
        return len(list(self.path.glob("invoice-*.html")))


@contextmanager
def invoices_folder(given: Path | None) -> Iterator[Folder]:
    """Yield the given folder, or a temporary folder, which is removed at the end unless the demo has succeeded."""
    folder = Folder()
    try:
        folder.path = Path(tempfile.mkdtemp(prefix="pgjobq-invoices-")) if given is None else given
        folder.path.mkdir(parents=True, exist_ok=True)
        yield folder
    finally:
        if given is None and not folder.done and folder.path != Path():
            shutil.rmtree(folder.path, ignore_errors=True)


class Interruption:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt.

    at_once: the signal handler raises it immediately. A finalizer or a callback of a C library may swallow the
    exception, so the next pause() or check() raises it again.
    Without at_once, only pause() and check() raise it, because a library might print its own traceback if the exception
    occurred in a call of the storage. If the user sends a second signal because the call takes too long, the signal
    handler raises it immediately. Further signals do not interrupt the cleanup.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._pausing = self._heard = self._raised = False
        for number in SIGNALS:
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        expected = self._at_once or self._pausing or self._heard
        self._heard = True
        if expected and not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a signal."""
        if self._heard:
            self._raised = True
            raise KeyboardInterrupt

    def pause(self, seconds: float) -> None:
        """Sleep. Raises KeyboardInterrupt if there was a signal, or if one arrives meanwhile."""
        self._pausing = True
        try:
            self.check()
            time.sleep(seconds)
        finally:
            self._pausing = False


@contextmanager
def worker_process(dsn: str, *words: str, **environment: str) -> Iterator[Process]:
    """Run `pgjobq worker pgjobq.demo.tasks` with additional arguments and variables, until the block ends."""
    command = [sys.executable, "-m", "pgjobq", "worker", "pgjobq.demo.tasks", "--log-level", "warning", *words]
    ours = {key: value for key, value in os.environ.items() if key not in ("PGJOBQ_SCHEMA", "PGJOBQ_DEMO_SHOP")}
    process = subprocess.Popen(  # noqa: S603  # runs pgjobq with arguments from this module
        command,
        env={**ours, "PGJOBQ_DSN": dsn, **environment},
        start_new_session=True,  # this process handles Ctrl-C
        preexec_fn=die_with_parent,  # noqa: PLW1509  # a single prctl call, and no other thread runs yet
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def progress_bars(console: Console) -> Progress:
    """Return progress bars for orders and invoices."""
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def print_summary(
    console: Console, counts: dict[str, int], waits: tuple[float, float] | None, since: str, invoices: str
) -> None:
    """Print the results. waits: p50 and p99 of the start latency in milliseconds. since: what the latency spans."""
    console.print(f"\n  jobs           {', '.join(f'{n} {status}' for status, n in sorted(counts.items())) or 'none'}")
    if waits is not None:
        console.print(f"  start latency  p50 {waits[0]:.1f} ms, p99 {waits[1]:.1f} ms, from {since}")
    console.print(f"  invoices       {invoices}", soft_wrap=True)
