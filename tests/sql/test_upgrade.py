"""Upgrading a database of an earlier version that has jobs in every state and a registered worker.

tests/released has the output of `pgjobq migrate --print` of each version.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgjobq import StorageError
from pgjobq.postgres.schema import migrate, newest_version

Connection = psycopg.Connection[Any]

RELEASED = Path(__file__).parents[1] / "released"
VERSIONS = sorted(int(path.name.removeprefix("version_").split(".")[0]) for path in RELEASED.glob("version_*.sql.gz"))
# One job in each state. Worker 1 runs the running job.
JOBS = """
select register_worker('w');
select enqueue_job('t', '{"n": 1}', job_id => 'running', priority => 9);
select enqueue_job('t', job_id => 'completed', priority => 9), enqueue_job('t', job_id => 'failed', priority => 9);
select claim_jobs(1, null, 3);
select complete_jobs(1, array['completed'], array[1]), fail_job('failed', 1, 'its error');
select enqueue_job('t', job_id => 'cancelled'), cancel_job('cancelled');
select enqueue_job('t', '{"n": 2}', job_id => 'pending', queue => 'mail', max_retries => 7);
select enqueue_job('t', job_id => 'scheduled', execute_at => '2100-01-01Z');
"""
KEPT = """
select id, queue, type, data, status, priority, attempts, crashes, max_retries, execute_at, error, created_at,
       updated_at, started_at, finished_at, failed_at, claim_id, worker_id from jobs order by id
"""


@pytest.fixture(params=VERSIONS)
def released(request: pytest.FixtureRequest, empty_dsn: str) -> Iterator[Connection]:
    """A database of an earlier version with jobs."""
    script = gzip.decompress((RELEASED / f"version_{request.param}.sql.gz").read_bytes())
    with psycopg.connect(empty_dsn, autocommit=True, options="-c search_path=pgjobq,public") as conn:
        conn.execute(script)
        conn.execute(JOBS)
        yield conn


def test_jobs_in_every_state_are_unchanged_and_can_continue(released: Connection, empty_dsn: str) -> None:
    before = released.execute(KEPT).fetchall()
    assert {row[4] for row in before} == {"pending", "running", "completed", "failed", "cancelled"}
    report = migrate(empty_dsn)
    assert report.after == newest_version() > (report.before or 0)
    assert report.notices == []
    assert released.execute(KEPT).fetchall() == before
    assert released.execute("select count(*) from jobs where unique_key is not null").fetchone() == (0,)
    assert released.execute("select complete_jobs(1, array['running'], array[1])").fetchall() == []
    assert released.execute("select id from claim_jobs(1, null, 9)").fetchall() == [("pending",)]
    assert released.execute("select retry_job('failed'), retry_job('cancelled')").fetchone() == (True, True)
    released.execute("update jobs set execute_at = now() where id = 'scheduled'")
    left = released.execute("select id from claim_jobs(1, null, 9) order by id").fetchall()
    assert left == [("cancelled",), ("failed",), ("scheduled",)]


def test_second_migration_changes_nothing(released: Connection, empty_dsn: str) -> None:
    migrate(empty_dsn)
    versions = "select version, applied_at from schema_version order by version"
    before = released.execute(versions).fetchall()
    assert [version for version, _ in before] == list(range(1, newest_version() + 1))
    assert migrate(empty_dsn).before == newest_version()
    assert released.execute(versions).fetchall() == before


def test_upgrade_rewrites_no_table(released: Connection, empty_dsn: str) -> None:
    """A column with a volatile default, or of a domain with a check, would rewrite the table."""
    files = "select relname, relfilenode from pg_class where relnamespace = 'pgjobq'::regnamespace and relkind = 'r'"
    before = set(released.execute(files).fetchall())
    migrate(empty_dsn)
    assert before <= set(released.execute(files).fetchall())


def test_no_function_has_an_overload(released: Connection, empty_dsn: str) -> None:
    """A call with only some arguments could match either function."""
    migrate(empty_dsn)
    twice = """select proname from pg_proc where pronamespace in ('pgjobq'::regnamespace, 'public'::regnamespace)
                group by pronamespace, proname having count(*) > 1"""
    assert released.execute(twice).fetchall() == []
    released.execute("set search_path = public")
    assert released.execute("select enqueue_job('t', '{}', priority => 3)").fetchone() is not None


def test_calls_of_an_earlier_client_still_work(released: Connection, empty_dsn: str) -> None:
    """A web server may go on enqueueing after the migration until it is restarted."""
    migrate(empty_dsn)
    released.execute("select enqueue_job('t', '{}'::jsonb, 5, now(), 3, 'q', 'a')")
    released.execute(
        """select enqueue_jobs(array['t'], array['{}']::jsonb[], array[5], array[now()], array[3], array['q'], array['b'])"""
    )
    assert released.execute("select id from claim_jobs(1, '{q}', 9)").fetchall() == [("a",), ("b",)]


def test_object_that_depends_on_a_changed_function_is_named(released: Connection, empty_dsn: str) -> None:
    """The old function must be dropped, because with both a call without all arguments would be ambiguous."""
    released.execute("create view public.pinged as select pgjobq.enqueue_job('ping') as id")
    with pytest.raises(
        StorageError, match=r"enqueue_job\(text,.*view public.pinged depends on.*drop the objects that depend on it"
    ):
        migrate(empty_dsn)
    assert released.execute("select max(version) from schema_version").fetchone() != (newest_version(),)
    assert released.execute("select enqueue_job('t') is not null").fetchone() == (True,)
    released.execute("drop view public.pinged")
    assert migrate(empty_dsn).notices == []
