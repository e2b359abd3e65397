"""Run the command line as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DONE, NOT_DONE, USAGE, NOT_FOUND = 0, 1, 2, 3
NOWHERE = "postgresql://postgres:s3cret@127.0.0.1:1/postgres"
HANDLERS = '''
import os, threading, time
from pathlib import Path
from pgjobq import job

HERE = Path(__file__).parent

@job
def touch(name: str) -> None:
    (HERE / name).touch()

@job
def hold(name: str) -> None:
    """Create a file, and return when the file `go` exists, or after 20 seconds."""
    (HERE / f"{name}.began").touch()
    deadline = time.monotonic() + 20
    while not (HERE / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
'''


def environment(**more: str) -> dict[str, str]:
    """Return the environment of this process without variables that name a database."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return kept | {"COLUMNS": "200", "PYTHONUNBUFFERED": "1"} | more


class Cli:
    """Runs `python -m pgjobq` with PGJOBQ_DSN set to the test's database."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.environment, self.folder = environment(PGJOBQ_DSN=dsn), folder
        self.started: list[subprocess.Popen[str]] = []

    def run(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command and wait until it exits."""
        return subprocess.run(
            [sys.executable, "-m", "pgjobq", *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            cwd=self.folder,
            env=self.environment if env is None else env,
        )

    def said(self, *words: str, **options: Any) -> str:
        """Return the output of a command. The command must succeed and must not write to stderr."""
        done = self.run(*words, **options)
        assert (done.returncode, done.stderr) == (DONE, "")
        return done.stdout

    def json(self, *words: str) -> Any:
        """Run a command with --json and return the parsed output."""
        return json.loads(self.said(*words, "--json"))

    def complaint(self, status: int, *words: str, **options: Any) -> str:
        """Return the message of a command that must fail with this status.

        The message must be one line on stderr, without a traceback. stdout must be empty.
        """
        done = self.run(*words, **options)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert done.stderr.startswith("pgjobq: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that keeps running. Its log goes to the file `log`."""
        with (self.folder / "log").open("ab") as log:
            self.started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "pgjobq", *words],
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=self.folder,
                    env=self.environment,
                )
            )
        return self.started[-1]

    def log(self) -> str:
        """Return what the started commands have written to stderr."""
        return (self.folder / "log").read_text()


def made(dsn: str, folder: Path) -> Iterator[Cli]:
    (folder / "handlers.py").write_text(HANDLERS)
    cli = Cli(dsn, folder)
    yield cli
    for process in cli.started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
