"""`pgjobq wait`, and results on the command line."""

from __future__ import annotations

import json
import threading

from helpers.cli import DONE, NOT_FOUND, Cli

from pgjobq.outcomes import Completed
from pgjobq.storage.postgres_storage import PostgresStorage

TIME_OVER, NOT_COMPLETED = 4, 5


def complete(storage: PostgresStorage, job_id: str, result: str | None) -> None:
    storage.enqueue(job_id, "t", {})
    (job,) = storage.dequeue_many(1)
    storage.settle([Completed(job, result)])


def test_wait_prints_how_jobs_ended(cli: Cli, storage: PostgresStorage) -> None:
    complete(storage, "a", '{"x": [1, "\\u001b[31m\\n"]}')
    complete(storage, "b", None)
    assert cli.said("wait", "a", "b") == 'a  completed  {"x": [1, "\\u001b[31m\\n"]}\nb  completed\n'
    found = json.loads(cli.said("wait", "b", "a", "--json"))
    assert [(job["id"], job["result"]) for job in found] == [("b", None), ("a", {"x": [1, "\x1b[31m\n"]})]


def test_wait_until_a_job_ends(cli: Cli, storage: PostgresStorage) -> None:
    storage.enqueue("a", "t", {})
    threading.Timer(0.5, storage.cancel, ["a"]).start()
    done = cli.run("wait", "a", "--timeout", "20s")
    assert (done.returncode, done.stdout) == (NOT_COMPLETED, "a  cancelled\n")


def test_wait_in_vain(cli: Cli, storage: PostgresStorage) -> None:
    complete(storage, "a", "1")
    storage.enqueue("b", "t", {})
    done = cli.run("wait", "a", "b", "--timeout", "0")
    assert (done.returncode, done.stdout) == (TIME_OVER, "a  completed  1\n")
    assert "pgjobq: job 'b' did not end within 0 seconds" in done.stderr
    assert "there is no job 'c'" in cli.complaint(NOT_FOUND, "wait", "a", "c")


def test_show_prints_the_result_harmlessly(cli: Cli, storage: PostgresStorage) -> None:
    complete(storage, "a", '"\\u001b[31m\\nstatus       failed"')
    complete(storage, "b", "false")
    assert 'result       "\\u001b[31m\\nstatus       failed"\n' in cli.said("show", "a")
    assert "result       false\n" in cli.said("show", "b")
    assert json.loads(cli.said("show", "a", "--json"))["result"] == "\x1b[31m\nstatus       failed"
    assert cli.run("wait", "b").returncode == DONE
