"""Progress on the command line."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from helpers.cli import Cli

from pgjobq import JobQueue, Unsupported
from pgjobq.reports import Report

Connection = psycopg.Connection[Any]


def test_show_and_list_print_progress(cli: Cli, queue: JobQueue) -> None:
    quiet, job_id = queue.enqueue("x"), queue.enqueue("x")
    assert "progress" not in cli.said("show", job_id)
    claimed = {str(job.id): job for job in queue.storage.dequeue_many(2)}
    assert "progress" not in cli.said("list")
    report = Report.checked(0.4, "page 4\nof 10", {"page": 4})
    queue.storage.save_progress([(claimed[job_id], report)])
    (line,) = [line for line in cli.said("show", job_id).splitlines() if line.startswith("progress")]
    assert r'progress     40% page 4\nof 10 {"page": 4} (' in line
    listed = cli.said("list")
    assert [line.rstrip().endswith(r"40% page 4\nof 10") for line in listed.splitlines()[1:]] == [
        line.startswith(job_id) for line in listed.splitlines()[1:]
    ]
    shown = cli.json("show", job_id)["progress"]
    assert shown.pop("updated_at")
    assert shown == {"fraction": 0.4, "message": "page 4\nof 10", "meta": {"page": 4}}
    assert cli.json("show", quiet)["progress"] is None
    assert {job["id"]: job.get("progress", {}).get("fraction") for job in cli.json("list")} == {
        quiet: None,
        job_id: 0.4,
    }


def test_show_and_list_work_where_progress_cannot_be_read(cli: Cli, queue: JobQueue, conn: Connection) -> None:
    job_id = queue.enqueue("x")
    queue.storage.dequeue_many(1)
    # What a standby does when an unlogged table is read.
    conn.execute(
        "create function pgjobq.refuse(text) returns text language plpgsql as $$ begin"
        " raise feature_not_supported using message = 'cannot access unlogged relations during recovery'; end $$"
    )
    conn.execute(
        "create or replace view pgjobq.job_progress as"
        " select pgjobq.refuse(id) collate \"C\" as job_id, 0.5::float8 as fraction, ''::text as message,"
        " '{}'::jsonb as meta, now() as updated_at from pgjobq.jobs"
    )
    assert "running" in cli.said("show", job_id)
    assert "running" in cli.said("list")
    with pytest.raises(Unsupported, match="progress: a standby does not have it"):
        queue.progress(job_id)
