"""Tests that a claim reads only the jobs that it claims, not the backlog, finished jobs or a million future jobs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from helpers.sqlalchemy_databases import driven, mariadb_database
from sqlalchemy import Connection, Engine, create_engine, event, insert, text

from pgjobq.storage.sqlalchemy_storage import JobRecord, SQLAlchemyStorage

# Finished jobs, future jobs of a high priority, jobs of another queue, and finally due jobs.
FINISHED, FUTURE, OTHER, DUE = 20_000, 20_000, 10_000, 10_000
NOW = datetime.now(UTC)


def rows() -> Iterator[dict[str, Any]]:
    """Return the rows of a large table."""
    past, future = NOW - timedelta(days=1), NOW + timedelta(days=1)
    kinds = [
        ("done", FINISHED, "completed", "default", 5, past),
        ("later", FUTURE, "pending", "default", 9, future),
        ("other", OTHER, "pending", "busy", 7, past),
        ("due", DUE, "pending", "default", 5, past),
    ]
    for name, count, status, queue, priority, due in kinds:
        for n in range(count):
            at = due + timedelta(microseconds=n)
            times = dict.fromkeys(("execute_at", "created_at", "updated_at"), at)
            yield times | {
                "id": f"{name}-{n:06}",
                "type": "t",
                "data": "{}",
                "status": status,
                "queue": queue,
                "priority": priority,
            }


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a database with a large table."""
    if request.param == "sqlite":
        yield from filled(f"sqlite:///{tmp_path_factory.mktemp('plans')}/jobs.db")
    elif request.param == "postgresql":
        yield from filled(request.getfixturevalue("plans_dsn"))
    else:
        with mariadb_database(request.getfixturevalue("mariadb_url")) as made:
            yield from filled(made)


@pytest.fixture(scope="module")
def plans_dsn(pg_server: Any) -> Iterator[str]:
    """Return the URL of a PostgreSQL database for this module."""
    name = f"plans_{secrets.token_hex(6)}"
    password = f":{pg_server.password}" if pg_server.password else ""
    server = f"postgresql://{pg_server.user}{password}@{pg_server.host}:{pg_server.port}"
    engine = create_engine(
        driven(f"{server}/{pg_server.maintenance_dbname}"),
        isolation_level="AUTOCOMMIT",
    )
    with engine.connect() as conn:
        conn.execute(text(f"create database {name}"))
    yield f"{server}/{name}"
    with engine.connect() as conn:
        conn.execute(text(f"drop database {name} with (force)"))
    engine.dispose()


def filled(url: str) -> Iterator[str]:
    """Fill the table, and return the URL."""
    storage = SQLAlchemyStorage(url)
    storage.ping()
    with storage.engine.begin() as conn:
        conn.execute(insert(JobRecord), list(rows()))
    storage.close()
    yield url


@pytest.fixture(params=["never analysed", "analysed"])
def storage(url: str, request: pytest.FixtureRequest) -> Iterator[SQLAlchemyStorage]:
    """Return a storage on the database, before and after the database has collected statistics."""
    storage = SQLAlchemyStorage(url)
    if request.param == "analysed":
        with storage.engine.begin() as conn:
            conn.execute(text("analyze table jobs" if conn.dialect.name == "mysql" else "analyze"))
    yield storage
    storage.leave()
    storage.close()


def explained(storage: SQLAlchemyStorage, queues: list[str] | None, limit: int) -> list[str]:
    """Return the plans of the statements of a claim, in the form of their database."""
    plans: list[str] = []

    def explain(conn: Connection, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if not statement.startswith("EXPLAIN") and "jobs" in statement and statement.startswith(("SELECT", "UPDATE")):
            how = {"sqlite": "EXPLAIN QUERY PLAN ", "mysql": "EXPLAIN FORMAT=JSON ", "postgresql": "EXPLAIN (ANALYZE) "}
            # EXPLAIN ANALYZE runs the UPDATE. It is rolled back with the rest of the transaction.
            prefix = how[conn.dialect.name].replace("(ANALYZE)", "" if statement.startswith("UPDATE") else "(ANALYZE)")
            found = conn.exec_driver_sql(prefix + statement, parameters).all()
            plans.append("\n".join(str(row[-1]) for row in found))

    engine: Engine = storage.engine
    event.listen(engine, "before_cursor_execute", explain)
    try:
        jobs = storage.dequeue_many(limit, queues)
    finally:
        event.remove(engine, "before_cursor_execute", explain)
    assert len(jobs) == limit
    for job in jobs:
        storage.release(job.id)
    return plans


@pytest.mark.parametrize("queues", [None, ["default"], ["default", "busy"]], ids=str)
@pytest.mark.parametrize("limit", [1, 100])
def test_plans_of_a_claim(storage: SQLAlchemyStorage, queues: list[str] | None, limit: int) -> None:
    plans = explained(storage, queues, limit)
    assert len(plans) >= 3
    for plan in plans:
        {"sqlite": check_sqlite, "mysql": check_mysql, "postgresql": check_postgresql}[storage.engine.dialect.name](
            plan
        )


def check_sqlite(plan: str) -> None:
    """Check that each step uses an index, and that nothing is sorted."""
    for line in plan.splitlines():
        assert not line.startswith("SCAN jobs"), plan
        assert "USE TEMP B-TREE" not in line, plan


def check_mysql(plan: str) -> None:
    """Check that each table is read by an index range or equality, and that nothing is sorted."""

    def tables(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if "access_type" in node:
                yield node
            for value in node.values():
                yield from tables(value)
        elif isinstance(node, list):
            for value in node:
                yield from tables(value)

    assert "filesort" not in plan
    for table in tables(json.loads(plan)):
        assert table["access_type"] in {"range", "ref", "const", "eq_ref"}, plan


def check_postgresql(plan: str) -> None:
    """Check that there is no sequential scan and no sort, and that no row is read and filtered out."""
    assert "Seq Scan" not in plan, plan
    assert "Sort" not in plan, plan
    for line in plan.splitlines():
        if "Rows Removed by Filter" in line:
            assert int(line.split(":")[1]) < 10, plan


@pytest.mark.parametrize("queues", [None, ["default"]], ids=str)
def test_claim_reads_only_what_it_claims(storage: SQLAlchemyStorage, queues: list[str] | None) -> None:
    """A claim of ten jobs reads a few dozen rows, or takes as many steps of SQLite's machine as ten jobs need."""
    if storage.engine.dialect.name == "postgresql":
        return  # test_plans_of_a_claim covers PostgreSQL
    storage.release(
        storage.dequeue_many(1, queues)[0].id
    )  # so that the worker is registered and the statements are compiled
    before = work_done(storage)
    jobs = storage.dequeue_many(10, queues)
    most = 20_000 if storage.engine.dialect.name == "sqlite" else 200
    assert 0 < work_done(storage) - before < most
    for job in jobs:
        storage.release(job.id)


steps: dict[Engine, list[int]] = {}


def work_done(storage: SQLAlchemyStorage) -> int:
    """Return how much the database has read so far: rows, or hundreds of steps of SQLite's machine."""
    engine = storage.engine
    with engine.connect() as conn:
        if conn.dialect.name == "mysql":
            return sum(int(row[1]) for row in conn.exec_driver_sql("show global status like 'Handler_read%%'"))
        if engine not in steps:
            count = [0]

            def step() -> None:
                count[0] += 100

            conn.connection.driver_connection.set_progress_handler(step, 100)  # type: ignore[union-attr]
            steps[engine] = count
        return steps[engine][0]
