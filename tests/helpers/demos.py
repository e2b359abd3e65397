"""Run the demo as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pgjobq.demo

ORDERS = len((Path(pgjobq.demo.__file__).parent / "orders.csv").read_text().splitlines()) - 1


class Demo:
    """`pgjobq demo` with its own TMPDIR, by which its processes are recognized."""

    def __init__(self, temporary: Path, *words: str) -> None:
        self.temporary = temporary
        self._mark = f"DEMO_OF_TEST={temporary}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        environment = kept | {"TMPDIR": str(temporary), "DEMO_OF_TEST": str(temporary), "COLUMNS": "200"}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pgjobq", "demo", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=environment,
            start_new_session=True,
        )

    def ended(self) -> tuple[int, str]:
        """Wait until the demo has ended. Return its exit status and output."""
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output

    def processes(self) -> list[str]:
        """List the demo's live processes.

        Most of them have the mark in their environment. PostgreSQL overwrites its environment, so its processes are
        found by their folder.
        """
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # the process has ended in the meantime
                environment = (path / "environ").read_bytes().decode(errors="replace")
                command = (path / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                folders = (command, str((path / "cwd").readlink()))
                if self._mark in environment or any(str(self.temporary) in text for text in folders):
                    found.append(f"{path.name} {command}")
        return found

    def left(self) -> list[str]:
        """List the files in the demo's TMPDIR."""
        return sorted(path.name for path in self.temporary.iterdir())

    def kill(self) -> None:
        """Kill all processes of the demo."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for line in self.processes():
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
