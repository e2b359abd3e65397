"""pgjobq schedules."""

from __future__ import annotations

import re

import pytest
from helpers.cli import DONE, NOT_DONE, USAGE, Cli
from helpers.until import until

from pgjobq import JobQueue
from pgjobq.cli.common import EXIT_NOT_FOUND

PROGRAM = """
from pgjobq import job, schedule

@schedule("0 9 * * *", tz="Europe/Berlin", id="daily")
@job
def report(job):
    print("ran", job.id, flush=True)
"""


def test_create_list_and_show(cli: Cli) -> None:
    said = cli.said("schedules", "create", "nightly", "send", "0 9 * * *", '{"to": "a"}', "--tz", "Europe/Berlin")
    assert re.fullmatch(r"nightly: at 09:00 every day, Europe/Berlin; next: \w{3} \S+ 09:00:00 CES?T\n", said)
    cli.said("schedules", "create", "often", "send", "15m", "--priority", "8", "--paused")
    (nightly, often) = cli.json("schedules")
    assert (nightly["when"], nightly["job_data"]) == ("at 09:00 every day, Europe/Berlin", {"to": "a"})
    assert (often["when"], often["priority"], often["note"], often["next_run"]) == (
        "every 15 minutes",
        8,
        "paused",
        None,
    )
    assert cli.json("schedules", "list") == [nightly, often]
    listed = cli.said("schedules")
    assert "at 09:00 every day, Europe/Berlin" in listed
    assert listed.splitlines()[2].split()[-1] == "paused"
    shown = cli.said("schedules", "show", "nightly")
    assert shown.startswith("nightly: at 09:00 every day, Europe/Berlin; next: ")
    assert shown.splitlines()[0].count(" 09:00:00 ") == 5
    assert len(cli.json("schedules", "show", "nightly")["next_runs"]) == 5


def test_pause_resume_run_delete(cli: Cli, dsn: str) -> None:
    cli.said("schedules", "create", "a", "send", "@daily")
    assert cli.said("schedules", "pause", "a") == "a\n"
    assert cli.json("schedules")[0]["enabled"] is False
    job_id = cli.said("schedules", "run", "a").strip()
    with JobQueue(dsn) as queue:
        assert [job.id for job in queue.list_jobs()] == [job_id]
    assert cli.said("schedules", "resume", "a") == "a\n"
    assert cli.json("schedules")[0]["next_run"]
    assert cli.said("schedules", "delete", "a") == "a\n"
    assert cli.json("schedules") == []
    for command in ("show", "run", "pause", "resume", "delete", "preview"):
        assert "there is no schedule 'a'" in cli.complaint(EXIT_NOT_FOUND, "schedules", command, "a")


def test_preview(cli: Cli) -> None:
    said = cli.said("schedules", "preview", "0 9 * * 1-5", "--tz", "Asia/Tokyo", "-n", "3").splitlines()
    assert said[0] == "at 09:00 on Monday through Friday, Asia/Tokyo"
    assert len(said) == 4
    assert all(" 09:00:00 JST " in line and line.endswith("T00:00:00Z") for line in said[1:])
    cli.said("schedules", "create", "a", "send", "1h")
    assert len(cli.said("schedules", "preview", "a").splitlines()) == 6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "a", "t", "0 9 * *"), "expression: "),
        (("create", "a", "t", "soon"), "expression: 'soon' is not allowed; use five fields"),
        (("create", "a", "t", "@daily", "{"), "data: "),
        (("create", "a", "t", "@daily", "--tz", "Mars"), "--tz: "),
        (("create", "a", "t", "@daily", "--missed", "x"), "--missed: 'x' is not allowed; use once, skip or all"),
        (("preview", "61 9 * * *"), "expression: '61' is not a minute"),
    ],
)
def test_refusals(cli: Cli, words: tuple[str, ...], says: str) -> None:
    assert cli.complaint(USAGE, "schedules", *words).startswith(f"pgjobq: {says}")
    assert cli.json("schedules") == []


def test_declared_schedule_is_seen_while_its_worker_lives(cli: Cli) -> None:
    (cli.folder / "program.py").write_text(PROGRAM)
    worker = cli.start("worker", "program")
    until(lambda: cli.json("schedules") and cli.json("schedules")[0]["live"])
    (found,) = cli.json("schedules")
    assert (found["id"], found["job_type"], found["note"]) == ("daily", "report", "")
    done = cli.run("schedules", "delete", "daily")
    assert done.returncode == DONE
    assert "a live worker declares schedule 'daily'" in done.stderr
    cli.said("schedules", "create", "daily", "report", "@hourly")
    worker.terminate()
    worker.wait()
    (found,) = cli.json("schedules")
    assert found["note"] == ""  # it was deleted, and created by other means


def test_row_that_no_live_worker_declares_is_marked(cli: Cli) -> None:
    (cli.folder / "program.py").write_text(PROGRAM)
    worker = cli.start("worker", "program")
    until(lambda: cli.json("schedules") and cli.json("schedules")[0]["live"])
    worker.terminate()
    worker.wait()
    cli.said("schedules", "create", "daily", "report", "@hourly")
    assert cli.json("schedules")[0]["note"] == "no live worker declares it; changed since it was declared"


def test_storage_without_schedules(cli: Cli) -> None:
    env = cli.environment | {"PGJOBQ_DSN": "dynamodb://eu-central-1/jobs"}
    done = cli.run("schedules", env=env)
    assert done.returncode == NOT_DONE
    assert "DynamoDBStorage has no schedules" in done.stderr
