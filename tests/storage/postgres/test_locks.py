"""Tests of what any login can do with advisory locks, and that pgjobq works with the documented remedy."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgjobq import JobQueue, Registry, Worker, job
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Login = Callable[..., str]

PAGE = Path(__file__).resolve().parents[3] / "docs" / "howto" / "operate.md"
FUNCTIONS = """
select oid::regproc::text, pronargs
  from pg_proc
 where pronamespace = 'pg_catalog'::regnamespace and proname ~ 'advisory' and proname !~ 'unlock'
"""


def remedy() -> bytes:
    """Return the SQL block of the page."""
    (block,) = re.findall(r"^```sql\n(do \$\$\n.*?advisory.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(block).encode()


@pytest.fixture
def login(empty_dsn: str) -> Iterator[Login]:
    """Return a function that creates a login with these options and returns its DSN."""
    made: list[str] = []
    with psycopg.connect(empty_dsn, autocommit=True) as conn:

        def make(options: str = "") -> str:
            name, password = f"pgjobq_test_{secrets.token_hex(4)}", secrets.token_hex(8)
            conn.execute(f"create role {name} login password '{password}' {options}")
            made.append(name)
            return make_conninfo(empty_dsn, user=name, password=password)

        yield make
        for name in made:
            conn.execute(f"drop owned by {name} cascade; drop role {name}")


@pytest.fixture(params=["a superuser", "a role without rights"])
def owner(request: pytest.FixtureRequest, empty_dsn: str, login: Login) -> str:
    """Install the schema and return its owner's DSN."""
    migrate(empty_dsn, schema="other", public_function=False)  # creates the roles unless another test has
    dsn = empty_dsn
    if request.param != "a superuser":
        dsn = login()
        with psycopg.connect(empty_dsn, autocommit=True) as conn:
            conn.execute(f"create schema pgjobq authorization {conninfo_to_dict(dsn)['user']}")
    migrate(dsn)
    return dsn


def refused(dsn: str) -> set[tuple[str, int]]:
    """Return the advisory lock functions that this login may not call, by name and number of arguments."""
    found = set()
    with psycopg.connect(dsn, autocommit=True) as conn:
        for name, arguments in conn.execute(FUNCTIONS).fetchall():
            try:
                conn.execute(f"select {name}({', '.join(['1'] * arguments)})")
            except psycopg.errors.InsufficientPrivilege:
                found.add((name, arguments))
    return found


def test_any_login_can_imitate_a_worker_until_the_right_is_revoked(empty_dsn: str, owner: str, login: Login) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn, psycopg.connect(login(), autocommit=True) as stranger:
        (table,) = conn.execute("select 'pgjobq.workers'::regclass::oid::integer").fetchone() or ()
        lock, unlock = (f"select pg_advisory_{name}(%s, 99)" for name in ("lock", "unlock"))
        stranger.execute(lock, [table])
        assert conn.execute("select pgjobq.live_workers()").fetchall() == [(99,)]
        stranger.execute(unlock, [table])
        conn.execute(remedy())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stranger.execute(lock, [table])
        functions = set(conn.execute(FUNCTIONS).fetchall())
    assert len(functions) > 10
    assert refused(login()) == functions
    assert refused(login("in role pgjobq_work")) == functions


def test_everything_works_without_the_right(empty_dsn: str, owner: str, login: Login) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(remedy())
    migrate(owner)
    registry = Registry()
    done: list[str] = []

    @job(registry=registry)
    def note(name: str) -> None:
        done.append(name)

    sender = JobQueue(PostgresStorage(login("in role pgjobq_enqueue")), registry=registry)
    works = login("in role pgjobq_work")
    dead = PostgresStorage(works)
    sender.enqueue("note", {"name": "rescued"})
    assert [held.type for held in dead.dequeue_many(1)] == ["note"]
    dead.close()  # releases its lock without leave()
    serving = JobQueue(PostgresStorage(works), registry=registry)
    worker = Worker(serving, registry=registry, concurrency=1)
    worker.start()
    try:
        for name in ("first", "second"):
            sender.enqueue("note", {"name": name})
        with psycopg.connect(owner, autocommit=True) as conn:
            conn.execute("""insert into pgjobq.jobs (type, data) values ('note', '{"name": "inserted"}')""")
        deadline = time.monotonic() + 20
        while len(done) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert sorted(done) == ["first", "inserted", "rescued", "second"]
    finally:
        worker.stop()
    assert serving.storage.prune(timedelta(0)) == 4
    serving.close()
    sender.close()
