"""Tests of the load test from the command line: it passes or fails as it should, and leaves nothing behind."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]

ROOT = Path(__file__).parents[2]
LOCUST = ROOT / "loadtests" / "locust"

GENEROUS = ["--max-p99-ms", "20000", "--max-end-to-end-p99-ms", "9000"]  # because the machine may be busy
CALLS = {
    "copy, 500 jobs",
    "enqueue to completed",
    "enqueue_job",
    "enqueue_jobs, 500 jobs",
    "insert into orders, whose trigger enqueues",
    "job_stats",
    "list_jobs",
    "worker_status",
}


class LoadTest:
    """Runs loadtest.py with its own TMPDIR and a folder for its report."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.out, self._mark = folder / "out", f"LOADTEST_OF_TEST={folder}"
        self._temporary = folder / "tmp"
        self._temporary.mkdir(mode=0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LOADTEST"))}
        environment = kept | {"TMPDIR": str(self._temporary), "LOADTEST_OF_TEST": str(folder), "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [sys.executable, str(LOCUST / "loadtest.py"), "--out", str(self.out), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=environment,
            start_new_session=True,
        )

    def ended(self) -> tuple[int, str]:
        """Wait until it has ended, and return its exit status and output. Only its report may be left."""
        output, _ = self.process.communicate(timeout=120)
        assert self.processes() == []
        assert list(self._temporary.iterdir()) == []
        assert list(self.out.glob("runs*")) == []
        return self.process.returncode, output

    def wait_for(self, text: str) -> None:
        """Read its output up to the line that contains the text."""
        assert self.process.stdout is not None
        said = ""
        while text not in said:
            said = self.process.stdout.readline()
            assert said, f"the load test ended before it printed {text!r}"

    def calls(self) -> dict[str, dict[str, str]]:
        """Return the rows of its CSV file by name."""
        with (self.out / "calls_stats.csv").open() as file:
            return {row["Name"]: row for row in csv.DictReader(file)}

    def processes(self) -> list[str]:
        """List its live processes. PostgreSQL overwrites its environment, so its processes are found by their folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # the process has ended in the meantime
                marked = self._mark.encode() in (path / "environ").read_bytes().split(b"\0")
                if marked or str(self._temporary) in str((path / "cwd").readlink()):
                    found.append(path.name)
        return found

    def kill(self) -> None:
        """Kill all of its processes."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@pytest.fixture
def run() -> Iterator[Callable[..., LoadTest]]:
    """Return a function that starts a load test. All its processes are killed at the end of the test.

    The folders are accessible to other users, because the server runs as another user.
    """
    started: list[LoadTest] = []
    folders: list[Path] = []

    def start(*words: str) -> LoadTest:
        folders.append(Path(tempfile.mkdtemp(prefix="loadtest-of-test-")))
        folders[-1].chmod(0o755)
        started.append(LoadTest(folders[-1], *words))
        return started[-1]

    yield start
    for one in started:
        one.kill()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_every_job_is_done_once(run: Callable[..., LoadTest]) -> None:
    load = run("--seconds", "8", "--burst-users", "30", *GENEROUS)
    status, output = load.ended()
    assert status == 0, output
    assert "queue loadtest: passed\n" in output
    assert "FAIL" not in output
    stages_told = re.findall(r"^(ramp|burst|soak): (\d+) users", output, re.MULTILINE)
    assert stages_told == [("ramp", "20"), ("burst", "30"), ("soak", "20")]
    enqueued = re.search(r"nothing lost +([\d,]+) jobs enqueued, ([\d,]+) found", output)
    assert enqueued is not None
    assert enqueued[1] == enqueued[2]
    assert int(enqueued[1].replace(",", "")) > 1000
    again = re.search(r"no start too many +[\d,]+ starts of [\d,]+ jobs, (\d+) of which were retried", output)
    assert again is not None
    assert int(again[1]) > 0  # the first try of one mail in 50 fails
    calls = load.calls()
    assert set(calls) >= CALLS
    assert all(int(row["Request Count"]) > 0 for row in calls.values())
    assert {name for name, row in calls.items() if row["Failure Count"] != "0"} == set()
    assert f"report   {load.out}/report.html" in output
    report = (load.out / "report.html").read_text()
    assert "Nothing lost" in report
    assert "postgres" in report
    assert "postgresql://" not in report  # a password


@pytest.mark.slow
def test_exceeded_limit_fails(run: Callable[..., LoadTest]) -> None:
    load = run("--seconds", "4", "--max-end-to-end-p99-ms", "0.001", "EndToEndCaller")
    status, output = load.ended()
    assert status == 1, output
    assert re.findall(r"^  FAIL  (.*?)  ", output, re.MULTILINE) == ["p99 end to end"]
    assert re.search(r"p99 end to end +[\d.]+ ms \(enqueue to completed\), at most 0\.001 ms", output)
    assert load.calls()["P99 end to end"]["Failure Count"] == "1"  # it is in the report, too


@pytest.mark.slow
def test_missing_workers_are_noticed(run: Callable[..., LoadTest]) -> None:
    load = run("--seconds", "3", "--workers", "0", "--drain-seconds", "1", *GENEROUS, "SqlEnqueuer")
    status, output = load.ended()
    assert status == 1, output
    assert "load test: note: no worker serves the queue loadtest;" in output
    assert re.search(
        r"FAIL  queue drained +[\d,]+ jobs are not finished 1 s after the last call: no worker serves", output
    )
    assert re.search(r"FAIL  all completed +0 jobs completed, [\d,]+ pending", output)
    assert re.search(r"ok    nothing lost +([\d,]+) jobs enqueued, \1 found", output)
    assert (load.out / "report.html").exists()


@pytest.mark.slow
def test_it_ends_at_the_maximum_of_enqueued_jobs(run: Callable[..., LoadTest]) -> None:
    load = run("--ramp-seconds", "0", "--burst-seconds", "0", "--max-jobs", "50", *GENEROUS, "EndToEndCaller")
    status, output = load.ended()
    assert status == 0, output
    assert "50 jobs have been enqueued, so the load ends" in output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_run_checks_and_leaves_nothing_behind(run: Callable[..., LoadTest], number: signal.Signals) -> None:
    load = run("--seconds", "60", *GENEROUS)
    load.wait_for("ramp: 20 users")
    time.sleep(1)  # some calls
    load.process.send_signal(number)
    status, output = load.ended()
    assert status == 130, output
    assert "Traceback" not in output
    assert re.search(r"ok    nothing lost +([\d,]+) jobs enqueued, \1 found", output)
    assert output.endswith("load test: interrupted\n")
    assert (load.out / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.3, 1.5])
def test_early_interrupt_leaves_nothing_behind(run: Callable[..., LoadTest], moment: float) -> None:
    load = run("--seconds", "60")
    time.sleep(moment)
    load.process.send_signal(signal.SIGINT)
    status, output = load.ended()
    assert status in (130, -signal.SIGINT), output  # killed by the signal if that came before the handler was installed


@pytest.mark.slow
def test_own_database_keeps_its_jobs_and_is_cleaned(
    run: Callable[..., LoadTest], dsn: str, conn: Connection, migrated_database: Connection
) -> None:
    conn.execute("select enqueue_job('greet', queue => 'mail')")
    ours = ["--dsn", dsn, "--queue", "loadtest-mine"]
    load = run(*ours, "--seconds", "4", "--workers", "1", *GENEROUS, "SqlEnqueuer", "TriggerWriter")
    status, output = load.ended()
    assert status == 0, output
    counted = "select queue, status from jobs group by 1, 2 order by 1"
    assert conn.execute(counted).fetchall() == [("loadtest-mine", "completed"), ("mail", "pending")]
    conn.execute("select enqueue_job('loadtest.row', '{\"n\": 1}', queue => 'loadtest-mine')")

    status, output = run(*ours, "--clean").ended()
    assert status == 0, output
    assert re.search(r"load test: removed [\d,]+ jobs of the queue loadtest-mine", output)
    assert conn.execute(counted).fetchall() == [("mail", "pending")]
    assert conn.execute("select distinct queue from ready").fetchall() == [("mail",)]
    assert conn.execute("select to_regnamespace('pgjobq_loadtest')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--clean"], "--clean: name the database by --dsn"),
        (["--workers", "-1"], "--workers: -1 is not allowed"),
        (["--dsn", "postgresql://127.0.0.1:1/none", "--workers", "0"], "load test: 127.0.0.1:1/none cannot be reached"),
        (["--dsn", "{dsn}", "--workers", "0", "--queue", "mail"], "load test: queue: 'mail' may contain other jobs"),
        (["--dsn", "{dsn}", "--workers", "0", "--burst-users", "5000"], "--burst-users: 5000 is not allowed"),
        (["--dsn", "{dsn}", "--workers", "0", "--processes", "2"], "this load test runs in one locust process"),
        (["--dsn", "{dsn}", "--schema", "nowhere"], "not installed in the schema nowhere; run: pgjobq migrate"),
    ],
    ids=["clean", "workers", "unreachable", "queue", "bounds", "processes", "schema"],
)
def test_invalid_options_are_refused(run: Callable[..., LoadTest], dsn: str, words: list[str], sentence: str) -> None:
    status, output = run(*(word.format(dsn=dsn) for word in words)).ended()
    assert status == 2, output
    assert sentence in output
    assert "Traceback" not in output


def test_page_documents_exactly_the_options() -> None:
    page = (ROOT / "docs" / "howto" / "load-test.md").read_text()
    helps = [
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        for command in (
            [sys.executable, str(LOCUST / "loadtest.py"), "--help"],
            [sys.executable, "-m", "locust", "--help"],
        )
    ]
    named, known = (set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text)) for text in (page, "\n".join(helps)))
    # This variable belongs to pgjobq itself.
    assert named - known == {"--queues"}
    own = set(re.findall(r"^ {2}(--[a-z0-9-]+)", helps[0], re.MULTILINE))
    assert own <= named
    assert set(re.findall(r"LOADTEST_\w+", page)) <= set(re.findall(r"LOADTEST_\w+", helps[0]))
