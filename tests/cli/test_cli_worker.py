"""The commands that run until they are stopped: `pgjobq worker` and `pgjobq dev`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.cli import DONE, NOT_DONE, USAGE, Cli
from helpers.until import until

from pgjobq import JobQueue

Connection = psycopg.Connection[Any]


# -- worker ----------------------------------------------------------------------------------------


def test_worker_runs_jobs_until_sigterm(cli: Cli, tmp_path: Path) -> None:
    worker = cli.start("worker", "handlers")
    ids = [cli.said("enqueue", "touch", json.dumps({"name": f"t{n}"})).strip() for n in range(2)]
    until(lambda: (tmp_path / "t0").exists() and (tmp_path / "t1").exists())
    until(lambda: {cli.json("show", job_id)["status"] for job_id in ids} == {"completed"})
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == DONE
    lines = [line.split(maxsplit=2) for line in cli.log().splitlines()]
    assert [(level, event.split()[0]) for _, level, event in lines] == [
        ("INFO", "worker.started"),
        ("INFO", "worker.signal"),
        ("INFO", "worker.stopped"),
    ]
    assert "concurrency=8 queues=all" in cli.log()
    assert cli.json("stats")["workers"] == []


def test_worker_does_not_import_unneeded_modules(cli: Cli, tmp_path: Path, queue: JobQueue) -> None:
    told = "import sys\nfrom pathlib import Path\nfrom pgjobq import job\n@job\ndef tell() -> None:\n"
    (tmp_path / "telling.py").write_text(f"{told}    Path('told').write_text(' '.join(sys.modules))\n")
    queue.enqueue("tell")
    cli.start("worker", "telling")
    modules = until(lambda: (tmp_path / "told").exists() and (tmp_path / "told").read_text()).split()
    assert "pgjobq.worker" in modules
    assert not {"rich", "sqlalchemy", "pydantic", "pgjobq.cli.admin", "pgjobq.cli.supervisor"} & set(modules)


def test_worker_serves_only_its_queues(cli: Cli, tmp_path: Path, queue: JobQueue, conn: Connection) -> None:
    for name in ("mail", "news", "default"):
        queue.enqueue("touch", {"name": name}, queue=name)
    cli.start("worker", "handlers", "--queues", "mail, news", "--log-json")
    until(lambda: (tmp_path / "mail").exists() and (tmp_path / "news").exists())
    until(lambda: conn.execute("select count(*) from doorbell").fetchone() == (1,))  # the worker is asleep
    assert [job.queue for job in queue.get_pending_jobs()] == ["default"]
    started = json.loads(cli.log().splitlines()[0])
    assert (started["event"], started["queues"], started["level"]) == ("worker.started", "mail,news", "INFO")


def test_worker_runs_as_many_jobs_at_once_as_its_concurrency(
    cli: Cli, tmp_path: Path, queue: JobQueue, conn: Connection
) -> None:
    for n in range(3):
        queue.enqueue("hold", {"name": f"h{n}"}, priority=9 - n)
    cli.start("worker", "handlers", "--concurrency", "2")
    until(lambda: (tmp_path / "h0.began").exists() and (tmp_path / "h1.began").exists())
    time.sleep(0.3)  # enough time to start a third job if there were room
    assert not (tmp_path / "h2.began").exists()
    assert conn.execute("select count(*) from jobs where status = 'running'").fetchone() == (2,)
    (tmp_path / "go").touch()
    until(lambda: len(queue.get_completed_jobs()) == 3)


def test_sigterm_lets_a_running_job_finish(cli: Cli, tmp_path: Path, queue: JobQueue) -> None:
    job_id = queue.enqueue("hold", {"name": "h"})
    worker = cli.start("worker", "handlers")
    until((tmp_path / "h.began").exists)
    worker.send_signal(signal.SIGTERM)
    until(lambda: "worker.signal" in cli.log())
    late = queue.enqueue("touch", {"name": "late"})
    (tmp_path / "go").touch()
    assert worker.wait(10) == DONE
    job, after = queue.get_job(job_id), queue.get_job(late)
    assert job is not None
    assert after is not None
    assert (job.status, job.attempts) == ("completed", 1)
    assert (after.status, after.attempts) == ("pending", 0)


def until_it_ends(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send the signal until the process ends, because signals within a second of the first one count as the same."""

    def has_ended() -> bool:
        process.send_signal(number)
        return process.poll() is not None

    until(has_ended)


@pytest.mark.parametrize("how", ["second signal", "grace is over"])
def test_unfinished_job_is_released(cli: Cli, tmp_path: Path, queue: JobQueue, how: str) -> None:
    job_id = queue.enqueue("hold", {"name": "h"})
    worker = cli.start("worker", "handlers", *(["--grace", "0.2"] if how == "grace is over" else []))
    until((tmp_path / "h.began").exists)
    worker.send_signal(signal.SIGTERM)
    until(lambda: "worker.signal" in cli.log())
    if how == "second signal":
        assert worker.poll() is None  # the grace period is 30 seconds
        until_it_ends(worker, signal.SIGTERM)
    assert worker.wait(10) == DONE
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.status, job.attempts) == ("pending", 0)


def test_ctrl_c_stops_a_worker_cleanly(cli: Cli) -> None:
    worker = cli.start("worker", "handlers")
    until(lambda: "worker.started" in cli.log())
    worker.send_signal(signal.SIGINT)
    assert worker.wait(10) == DONE
    assert "Traceback" not in cli.log()
    assert cli.json("stats")["workers"] == []


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nothing.here"], USAGE, "module: 'nothing' is neither here nor installed; use a dotted name"),
        (["missing.py"], USAGE, "module: 'missing.py' does not exist; use a dotted name"),
        (["json"], USAGE, "json: no handlers found; decorate functions with @job from pgjobq"),
        (["handlers", "--concurrency", "0"], USAGE, "--concurrency: 0 is not allowed"),
        (["handlers", "--grace", "-1"], USAGE, "--grace: -1.0 is not allowed"),
        (["handlers", "--queues", ","], USAGE, r"--queues: \[\] is not a list of names"),
        (["handlers", "--log-level", "loud"], USAGE, "--log-level: 'loud' is not a level; use debug, info"),
    ],
)
def test_worker_with_invalid_options_says_how_to_correct_them(
    cli: Cli, words: list[str], status: int, message: str
) -> None:
    assert re.match(f"pgjobq: {message}", cli.complaint(status, "worker", *words))


def test_worker_refuses_a_database_that_is_not_migrated(empty_cli: Cli) -> None:
    assert "run: pgjobq migrate" in empty_cli.complaint(NOT_DONE, "worker", "handlers")


# -- dev -------------------------------------------------------------------------------------------


def test_dev_server_runs_until_ctrl_c_and_a_second_one_finds_it(cli: Cli) -> None:
    # The server may run as another user, which needs access to the folder.
    with tempfile.TemporaryDirectory(prefix="pgjobq-dev-") as folder:
        Path(folder).chmod(0o755)
        words = ("dev", "--folder", f"{folder}/server")
        server = cli.start(*words)
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(4)]
        assert f"is running, in {folder}/server" in lines[0]
        found = re.fullmatch(r"  export PGJOBQ_DSN='(.*)'\n", lines[2])
        assert found is not None
        told = cli.complaint(NOT_DONE, *words)
        assert found[1] in told
        job_id = cli.said("enqueue", "t", "--dsn", found[1]).strip()
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == DONE
        assert server.stdout.read() == "stopped\n"
        again = cli.start(*words)
        assert again.stdout is not None
        restarted_dsn = [again.stdout.readline() for _ in range(4)][2].split("'")[1]
        assert cli.json("list", "--dsn", restarted_dsn)[0]["id"] == job_id  # the data was kept
        again.send_signal(signal.SIGTERM)
        assert again.wait(20) == DONE
