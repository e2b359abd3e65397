"""`manage.py pgjobq worker --reload`: restart the worker when a Python file of the project changes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from django.utils import autoreload

from pgjobq.django.working import import_handlers
from pgjobq.signals import SIGNALS

POLL = 0.5  # seconds


def run_reloading(argv: list[str]) -> None:
    """Run the command as a child until Ctrl-C or SIGTERM. At a change, stop it gracefully, and start it again.

    A worker that ended, perhaps because a file has an error, is started again at the next change.
    """
    stopped: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda heard, _: stopped.append(heard))
    try:
        import_handlers()  # so that this process knows which files belong to the worker
    except Exception as error:
        sys.stderr.write(f"pgjobq: reload: {error!r}\n")
    while not stopped:
        seen = _times()
        # A group of its own, so that Ctrl-C in a terminal stops the worker once, through this process.
        child = subprocess.Popen([sys.executable, *argv], process_group=0)  # noqa: S603  # our own command line
        while not stopped and _times() == seen:
            time.sleep(POLL)
        child.send_signal(signal.SIGTERM)
        child.wait()
        if not stopped:
            sys.stderr.write("pgjobq: reload: a file has changed; the worker starts again\n")


def _times() -> dict[Path, float]:
    times: dict[Path, float] = {}
    for path in autoreload.iter_all_python_module_files():
        try:
            times[path] = path.stat().st_mtime
        except OSError:  # an editor replaces the file at this moment
            times[path] = 0.0
    return times
