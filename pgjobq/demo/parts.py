"""What both demos have: a worker process, a folder for the invoices, and a good end."""

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
    """Where the invoices go. done: every order has its own."""

    def __init__(self) -> None:
        self.path = Path()
        self.done = False

    def files(self) -> int:
        """How many invoices there are."""
        return len(list(self.path.glob("invoice-*.html")))


@contextmanager
def invoices_folder(given: Path | None) -> Iterator[Folder]:
    """The folder given, or one of the demo's own, which is removed again unless it was done."""
    folder = Folder()
    try:
        folder.path = Path(tempfile.mkdtemp(prefix="pgjobq-invoices-")) if given is None else given
        folder.path.mkdir(parents=True, exist_ok=True)
        yield folder
    finally:
        if given is None and not folder.done and folder.path != Path():
            shutil.rmtree(folder.path, ignore_errors=True)


class Interruption:
    """SIGINT and SIGTERM, as a KeyboardInterrupt, which is raised until the program takes notice of it.

    at_once: raised wherever the program is. Code may drop an exception that it does not expect (a finalizer, a callback
    of a C library), so the next pause or check raises it again. Without at_once it is raised in pauses alone: inside a
    storage's call, a library would print its own traceback of it. Then a second signal, sent because the call takes
    long, raises it wherever the program is. Once it was raised, no further signal cuts the cleaning up short.
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
        """Raise KeyboardInterrupt for a signal that was sent before."""
        if self._heard:
            self._raised = True
            raise KeyboardInterrupt

    def pause(self, seconds: float) -> None:
        """Sleep so long, or raise KeyboardInterrupt for what was sent before or is sent meanwhile."""
        self._pausing = True
        try:
            self.check()
            time.sleep(seconds)
        finally:
            self._pausing = False


@contextmanager
def worker_process(dsn: str, *words: str, **environment: str) -> Iterator[Process]:
    """`pgjobq worker pgjobq.demo.tasks`, with these words and variables more; it ends with the block."""
    command = [sys.executable, "-m", "pgjobq", "worker", "pgjobq.demo.tasks", "--log-level", "warning", *words]
    ours = {key: value for key, value in os.environ.items() if key not in ("PGJOBQ_SCHEMA", "PGJOBQ_DEMO_SHOP")}
    process = subprocess.Popen(  # noqa: S603  # our own program, with arguments of our own
        command,
        env={**ours, "PGJOBQ_DSN": dsn, **environment},
        start_new_session=True,  # Ctrl-C is ours to handle
        preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl, and no thread runs yet
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
    """Bars for orders and invoices."""
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def print_summary(
    console: Console, counts: dict[str, int], waits: tuple[float, float] | None, since: str, invoices: str
) -> None:
    """What became of it. waits: start latency, p50 and p99, in milliseconds; since: from when."""
    console.print(f"\n  jobs           {', '.join(f'{n} {status}' for status, n in sorted(counts.items())) or 'none'}")
    if waits is not None:
        console.print(f"  start latency  p50 {waits[0]:.1f} ms, p99 {waits[1]:.1f} ms, from {since}")
    console.print(f"  invoices       {invoices}", soft_wrap=True)
