"""Tests that pgjobq works whatever settings the role, the database, the environment or the caller's connection has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.adapt import Loader
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.types.string import StrDumper
from psycopg_pool import ConnectionPool

from pgjobq import ConfigurationError, DuplicateJob, InvalidJob, JobQueue, JobStatus, NewJob
from pgjobq.postgres.dsn import connection_parameters
from pgjobq.postgres.pool import connect
from pgjobq.postgres.schema import migrate
from pgjobq.storage.base import Failed, Retried
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]

# Each of these settings would break psycopg, PostgreSQL or the queue if pgjobq did not override it.
SETTINGS = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "statement_timeout": "1",
    "lock_timeout": "1",
    "idle_session_timeout": "200",
    "idle_in_transaction_session_timeout": "1",
    "search_path": "nowhere",
    "row_security": "off",
    "client_min_messages": "debug5",
    "plan_cache_mode": "force_custom_plan",
    "jit": "on",
    "exit_on_error": "on",
    "client_encoding": "LATIN1",
}
LONG_AGO = datetime(2001, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
TEXT = "Ł → 日本 \U0001f600"


@pytest.fixture
def role(dsn: str, conn: Connection) -> Iterator[Callable[[dict[str, str]], str]]:
    """Return a function that creates a superuser with these settings and returns its DSN. It is dropped at the end."""
    name = f"t_{conn.info.dbname}"[:60]
    conn.execute(f"create role {name} superuser login password '{name}'")

    def make(settings: dict[str, str]) -> str:
        for setting, value in settings.items():
            conn.execute(f"alter role {name} set {setting} = {value if ',' in value else repr(value)}")
        return make_conninfo(dsn, user=name, password=name)

    yield make
    conn.execute(f"drop role {name}")


def work_through(storage: PostgresStorage) -> None:
    """Enqueue, claim, settle and read jobs, with values that settings could change."""
    storage.enqueue("one", "t", {"text": TEXT}, execute_at=LONG_AGO)
    storage.enqueue_many([NewJob(type=TEXT, id=TEXT, data={"f": 0.1}), NewJob(type="t", id="three", delay=0)])
    with pytest.raises(DuplicateJob):
        storage.enqueue("one", "t", {})
    jobs = {job.id: job for job in storage.dequeue_many(5)}
    assert jobs.keys() == {"one", TEXT, "three"}
    assert jobs["one"].execute_at == LONG_AGO
    assert jobs["one"].data == {"text": TEXT}
    assert jobs[TEXT].data == {"f": 0.1}
    storage.wait(0.01)
    assert storage.settle([Failed(jobs[TEXT], TEXT), Retried(jobs["three"], 60, TEXT)]) == []
    storage.complete("one")
    found = storage.get_job(TEXT)
    assert found is not None
    assert (found.type, found.error, found.status) == (TEXT, TEXT, JobStatus.FAILED)
    assert [job.error for job in storage.list_jobs("pending")] == [TEXT]
    assert len(storage.stats()) == 3
    assert len(storage.workers()) == 1
    assert sum(map(len, storage.export_jobs(2))) == 3
    assert storage.prune(timedelta(0)) == 1
    assert storage.maintain([]).lost == []
    storage.leave()


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_the_role_do_not_matter(role: Callable[[dict[str, str]], str], setting: str) -> None:
    storage = PostgresStorage(role({setting: SETTINGS[setting]}))
    try:
        work_through(storage)
    finally:
        storage.close()


def test_statement_timeout_that_cancels_its_own_override(dsn: str) -> None:
    """The role's limit applies until pgjobq overrides it, and that may take longer than the limit on a busy machine."""
    with connect(connection_parameters(dsn, "test")) as conn:
        conn.execute("set statement_timeout = 1")
        given: list[bytes] = []

        def execute(settings: bytes) -> None:
            given.append(settings)
            if len(given) < 3:
                psycopg.Connection.execute(conn, "select pg_sleep(1)")
            psycopg.Connection.execute(conn, settings)

        conn.execute = execute  # type: ignore[method-assign,assignment]  # the first two calls exceed the limit
        conn.pin(7.0)
        assert len(given) == 3
        del conn.execute  # uncovers the method of the class
        assert conn.execute("show statement_timeout").fetchone() == ("6300ms",)


def test_encoding_that_the_environment_names_does_not_matter(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    for given in (dsn, make_conninfo(dsn, client_encoding="latin1")):
        storage = PostgresStorage(given)
        storage.enqueue(f"{TEXT}{given == dsn}", TEXT, {"text": TEXT})
        assert storage.get_job(f"{TEXT}{given == dsn}").type == TEXT  # type: ignore[union-attr]  # the job exists
        storage.close()


def test_callers_pool_that_is_serializable_and_read_only(role: Callable[[dict[str, str]], str]) -> None:
    """pgjobq does not change the pool's settings. It sets what it needs in each of its transactions."""
    dsn = role({"default_transaction_isolation": "serializable", "default_transaction_read_only": "on"})
    with ConnectionPool(dsn, min_size=1, max_size=4, open=True) as pool:
        storage = PostgresStorage(pool)
        work_through(storage)
        with pool.connection() as conn:
            assert conn.execute("show transaction_isolation").fetchone() == ("serializable",)
        storage.close()


def test_callers_pool_with_another_encoding_is_refused(dsn: str) -> None:
    wanted = r"^conninfo: .* client_encoding iso8859-1, and jobs need UTF8"
    with (
        ConnectionPool(dsn, kwargs={"client_encoding": "latin1"}, open=True) as pool,
        pytest.raises(ConfigurationError, match=wanted),
    ):
        PostgresStorage(pool).enqueue("a", "t", {})


def test_callers_pool_may_have_a_function_as_conninfo(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener must connect to the same server, not to libpq's default."""
    monkeypatch.setenv("PGHOST", "/nowhere")
    password = psycopg.conninfo.conninfo_to_dict(dsn)["password"]
    where = make_conninfo(dsn, password=f"not {password}")
    with ConnectionPool(lambda: where, kwargs=lambda: {"password": password}, open=True) as pool:
        storage = PostgresStorage(pool)
        work_through(storage)
        storage.close()


def test_disabled_triggers_are_reported(role: Callable[[dict[str, str]], str]) -> None:
    storage = PostgresStorage(role({"session_replication_role": "replica"}))
    with pytest.raises(ConfigurationError, match="session_replication_role"):
        storage.enqueue("a", "t", {})
    storage.close()


class Shout(StrDumper):
    def dump(self, obj: Any) -> Any:
        return super().dump(obj.upper())


class Odd(Loader):
    def load(self, data: Any) -> Any:
        return ("odd", bytes(data))


def disturb(connection: Any) -> None:
    """Change everything that can be changed for one connection."""
    connection.row_factory = dict_row
    connection.cursor_factory = psycopg.ClientCursor
    for kind in (str, dict, list, int, float, bytes):
        connection.adapters.register_dumper(kind, Shout)
    for name in ("text", "int4", "int8", "bool", "timestamptz"):
        connection.adapters.register_loader(name, Odd)


HARMLESS = {name: value for name, value in SETTINGS.items() if name not in {
    "default_transaction_read_only", "statement_timeout", "exit_on_error", "idle_in_transaction_session_timeout", "idle_session_timeout"}}  # fmt: skip


@pytest.mark.parametrize("several", [False, True])
def test_callers_connection_may_be_of_any_kind(dsn: str, queue: JobQueue, several: bool) -> None:
    settings = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in HARMLESS.items())
    jobs = [NewJob(type=TEXT, data={"text": TEXT, "n": [1, None, 0.1]}, execute_at=LONG_AGO, id="Ab")]
    jobs += [NewJob(type="t", delay=1), NewJob(type="t", delay=1.5), NewJob(type="t", queue=TEXT, id=TEXT)] * several
    with psycopg.connect(dsn, options=settings, client_encoding="latin1") as callers:
        disturb(callers)
        disturbed = callers.row_factory
        before = {name: callers.pgconn.parameter_status(name.encode()) for name in ("DateStyle", "TimeZone")}
        shown = [psycopg.ClientCursor(callers).execute(f"show {name}").fetchone() for name in HARMLESS]
        assert queue.enqueue_many(jobs, connection=callers) == [job.id for job in jobs]
        assert [psycopg.ClientCursor(callers).execute(f"show {name}").fetchone() for name in HARMLESS] == shown
        assert before == {name: callers.pgconn.parameter_status(name.encode()) for name in before}
        assert callers.row_factory == disturbed
    found = queue.get_job("Ab")
    assert found is not None
    assert (found.type, found.data, found.execute_at) == (TEXT, {"text": TEXT, "n": [1, None, 0.1]}, LONG_AGO)
    assert sum(queue.counts().values()) == len(jobs)
    if several:
        assert queue.get_job(TEXT).queue == TEXT  # type: ignore[union-attr]  # the job exists
    with psycopg.connect(dsn, client_encoding="latin1") as again, pytest.raises(DuplicateJob, match="Ab"):
        queue.enqueue_many(jobs, connection=again)


def test_callers_async_connection_may_be_of_any_kind(dsn: str, queue: JobQueue) -> None:
    async def act() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, client_encoding="latin1") as callers:
            disturb(callers)
            callers.cursor_factory = psycopg.AsyncClientCursor
            await queue.enqueue_async(TEXT, {"text": TEXT}, job_id="a", connection=callers)

    asyncio.run(act())
    assert queue.get_job("a").data == {"text": TEXT}  # type: ignore[union-attr]  # the job exists


def test_programs_own_adapters_are_for_its_handlers(queue: JobQueue, conn: Connection) -> None:
    """psycopg.adapters applies to the whole program, but must not change pgjobq's own statements."""
    before = psycopg.adapters.get_loader("text", psycopg.pq.Format.TEXT)  # type: ignore[arg-type]  # by name
    assert before is None or before is not Odd
    queue.enqueue("t", job_id="a")
    job = queue.storage.dequeue()
    assert job is not None
    with queue.storage.transaction(job) as mine:
        disturb(mine)
        assert mine.execute("select 'x'::text as x", None).fetchone() == {"x": ("odd", b"x")}
    assert queue.storage.list_jobs("completed")[0].id == "a"
    for _ in range(3):
        assert queue.enqueue("t") == queue.list_jobs()[0].id


def test_settings_of_a_handler_end_with_its_transaction(queue: JobQueue, role: Callable[[dict[str, str]], str]) -> None:
    storage = PostgresStorage(role({"statement_timeout": "5s", "search_path": "public"}), max_size=1)
    queue.enqueue("t", job_id="a")
    job = storage.dequeue()
    assert job is not None
    with storage.transaction(job) as mine:
        # The handler has the role's settings, and none of pgjobq's limits.
        assert mine.execute("select current_setting('statement_timeout'), current_setting('search_path')").fetchone() == ("5s", "public")  # fmt: skip
        assert mine.execute("show idle_in_transaction_session_timeout").fetchone() == ("0",)
        for setting in ("statement_timeout = '1ms'", "timezone = 'Asia/Kathmandu'", "datestyle = 'SQL'", "role = pgjobq_read"):  # fmt: skip
            mine.execute(f"set {setting}")
        mine.execute("reset role")
    for _ in range(3):
        queue.enqueue("t")
        assert storage.dequeue() is not None
    storage.leave()
    storage.close()


def test_every_connection_of_a_worker_notices_a_dead_host(queue: JobQueue) -> None:
    with queue.storage._database.connection() as conn:  # type: ignore[attr-defined]  # PostgreSQL's
        found = [conn.execute(f"show {name}").fetchone() for name in ("tcp_keepalives_idle", "tcp_user_timeout", "idle_in_transaction_session_timeout")]  # fmt: skip
        assert found == [("5",), ("10000",), ("15s",)]
        assert conn.info.get_parameters()["keepalives_idle"] == "5"
        assert conn.info.get_parameters()["tcp_user_timeout"] == "10000"


def test_schema_may_have_any_name(dsn: str) -> None:
    for schema in ("50%", "a%sb", "%(x)s", 'q"%b', "Łódź%"):
        migrate(dsn, schema=schema, public_function=False)
        storage = PostgresStorage(dsn, schema=schema, pooled=True)
        storage.enqueue("a", "t", {})
        with psycopg.connect(dsn) as callers:
            storage.enqueue_many([NewJob(type="t", id="b")], callers)
        assert [job.id for job in storage.dequeue_many(2)] == ["a", "b"]
        storage.complete("a")
        storage.close()


def test_mixed_delays_and_times(queue: JobQueue) -> None:
    jobs = [NewJob(type="t", delay=1), NewJob(type="t", delay=1.5), NewJob(type="t"), NewJob(type="t", execute_at=LONG_AGO)]  # fmt: skip
    assert queue.enqueue_many(jobs) == [job.id for job in jobs]
    with pytest.raises(InvalidJob, match="delay"):
        NewJob(type="t", delay=1e16)
