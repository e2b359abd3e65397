"""`pgjobq logs`: what handlers have logged, and what they log now."""

from __future__ import annotations

from helpers.cli import NOT_FOUND, USAGE, Cli
from helpers.until import until
from helpers.working import finished

from pgjobq import JobQueue

HANDLERS = """
import logging, time
from pathlib import Path
from pgjobq import job

@job(capture_logs=True)
def talk(job) -> None:
    job.progress(job.attempts / 10)
    logging.getLogger("app").info("one\\ntwo \\x1b[31m")
    while not Path("go").exists():
        time.sleep(0.01)
    logging.getLogger("app").info("three")
"""


def test_logs_are_followed_until_the_job_has_ended(cli: Cli, queue: JobQueue) -> None:
    (cli.folder / "talking.py").write_text(HANDLERS)
    job_id = queue.enqueue("talk")
    following = cli.start("logs", "-f", job_id)
    cli.start("worker", "talking")
    assert following.stdout is not None
    assert following.stdout.readline().endswith("[1] INFO app: one\n")
    assert following.stdout.readline() == "    two \\x1b[31m\n"
    (cli.folder / "go").touch()
    assert following.stdout.readline().endswith("[1] INFO app: three\n")
    assert following.wait(20) == 0
    assert following.stdout.read() == ""
    assert [line[-7:] for line in cli.said("logs", job_id).splitlines()] == ["pp: one", r"\x1b[31m"[-7:], ": three"]
    assert [line["line"] for line in cli.json("logs", job_id)] == ["one\ntwo \x1b[31m", "three"]


def test_logs_of_a_job_that_does_not_exist(cli: Cli, queue: JobQueue) -> None:
    assert "there is no job 'x'" in cli.complaint(NOT_FOUND, "logs", "x")
    assert cli.said("logs", queue.enqueue("quiet")) == ""


def test_json_does_not_go_with_follow(lone_cli: Cli) -> None:
    assert "--json" in lone_cli.run("logs", "-f", "x", "--json").stderr
    assert lone_cli.run("logs", "-f", "x", "--json").returncode == USAGE


def test_a_killed_try_keeps_its_lines_and_its_progress_is_not_that_of_the_next(cli: Cli, queue: JobQueue) -> None:
    (cli.folder / "talking.py").write_text(HANDLERS)
    job_id = queue.enqueue("talk")
    first = cli.start("worker", "talking")
    until(lambda: queue.logs(job_id))
    assert (queue.progress(job_id) or {}).get("fraction") == 0.1
    first.kill()
    first.wait()
    until(queue.storage.rescue)
    assert queue.progress(job_id) is None
    cli.start("worker", "talking")
    until(lambda: len(queue.logs(job_id)) == 2)
    assert (queue.progress(job_id) or {}).get("fraction") == 0.2
    (cli.folder / "go").touch()
    finished(queue, job_id)
    assert [(line["attempt"], line["line"].splitlines()[0]) for line in queue.logs(job_id)] == [
        (1, "one"),
        (2, "one"),
        (2, "three"),
    ]
