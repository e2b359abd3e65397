"""pgjobq copy brings schedules, ours and those of DBJobQ."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from helpers.cli import DONE, NOT_DONE, Cli

from pgjobq import JobQueue, Schedule
from pgjobq.postgres.schema import migrate

DBJOBQ = """
create table jobs (id varchar primary key, type varchar not null, data text not null, status varchar not null);
create table schedules (
    id varchar primary key, job_type varchar not null, job_data text not null, schedule_type varchar not null,
    schedule_expression varchar not null, next_run float not null, last_run float, enabled boolean default true,
    max_retries integer default 0, priority integer default 0, created_at timestamp, updated_at timestamp
);
insert into schedules (id, job_type, job_data, schedule_type, schedule_expression, next_run, enabled, priority) values
    ('nightly', 'app.report', '{"to": "a"}', 'cron', '0 9 * * *', 1700000000.5, 1, 3),
    ('often', 'app.beat', '{}', 'interval', '90', 1700000000.0, 1, 0),
    ('paused', 'app.beat', '{}', 'cron', '@daily', 1700000000.0, 0, 0),
    ('seconds', 'app.beat', '{}', 'cron', '* * * * * 30', 1700000000.0, 1, 0);
"""


def test_schedules_arrive_with_their_pauses_and_declarations(cli: Cli, dsn: str) -> None:
    migrate(dsn, schema="other", public_function=False)
    declared = Schedule("a", "t", {"n": 1}, schedule_expression="0 9 * * *", time_zone="Europe/Berlin")
    with JobQueue(dsn) as queue, JobQueue(dsn, schema="other") as other:
        queue.storage.declare_schedules({"a": declared})
        queue.enable_schedule("a", False)
        queue.create_schedule("b", "t", 60, jitter=5)
        words = ("copy", dsn, dsn, "--dst-schema", "other")
        assert cli.said(*words).splitlines()[1] == "2 schedules copied, 0 were already there"
        assert cli.said(*words).splitlines()[1] == "0 schedules copied, 2 were already there"
        for before, after in zip(queue.list_schedules(), other.list_schedules(), strict=True):
            assert before.arguments() == after.arguments()
            assert before.declared == after.declared
        assert other.storage.declare_schedules({"a": declared})[0].outcome == "kept"


def test_schedules_of_dbjobq(cli: Cli, dsn: str) -> None:
    with sqlite3.connect(cli.folder / "old.db") as old:
        old.executescript(DBJOBQ)
    done = cli.run("copy", "sqlite:///old.db", dsn, "--tz", "Europe/Berlin")
    assert done.returncode == NOT_DONE
    assert done.stdout.splitlines()[1] == "3 schedules copied, 0 were already there, 1 were refused"
    assert "schedule 'seconds' was refused: expression: has six fields" in done.stderr
    with JobQueue(dsn) as queue:
        nightly, often, paused = queue.list_schedules()
    assert (nightly.job_type, nightly.job_data, nightly.priority) == ("app.report", {"to": "a"}, 3)
    assert nightly.time_zone == "Europe/Berlin"
    assert often.starts_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert (often.schedule_type, often.schedule_expression) == ("interval", "90")
    assert not paused.enabled


def test_copy_without_schedules_says_nothing_of_them(cli: Cli, dsn: str) -> None:
    done = cli.run("copy", dsn, "sqlite:///new.db")
    assert (done.returncode, done.stdout) == (DONE, "0 jobs copied, 0 were already there\n")
