"""Tests that the members of each role may do what is documented, by JobQueue, Worker and the command line."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.until import until
from psycopg.conninfo import make_conninfo

from pgjobq import JobQueue, Registry, StorageError, Worker, job
from pgjobq.postgres.rights import ROLES, needed_for, rights
from pgjobq.postgres.script import sql_dir
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Login = Callable[[str], str]

ENQUEUE, READ, WORK, ADMIN = "pgjobq_enqueue", "pgjobq_read", "pgjobq_work", "pgjobq_admin"
HANDLERS = "from pgjobq import job\n\n@job\ndef t() -> None:\n    pass\n"


REGISTRY = Registry()


@job(registry=REGISTRY)
def t() -> None:
    """Do nothing."""


@pytest.fixture
def login(dsn: str, conn: Connection) -> Iterator[Login]:
    """Return a function that creates a login, makes it a member of a role or of none, and returns its DSN."""
    made: list[str] = []

    def make(role: str) -> str:
        name, password = f"pgjobq_test_{secrets.token_hex(4)}", secrets.token_hex(8)
        member = f"in role {role}" if role else ""
        conn.execute(f"create role {name} login password '{password}' {member}")
        made.append(name)
        return make_conninfo(dsn, user=name, password=password)

    yield make
    for name in made:
        conn.execute(f"drop role {name}")


@pytest.fixture
def make_queue(login: Login) -> Iterator[Callable[[str], JobQueue]]:
    """Return a function that creates a queue which connects as a member of a role."""
    made: list[JobQueue] = []

    def make(role: str) -> JobQueue:
        made.append(JobQueue(PostgresStorage(login(role)), registry=REGISTRY))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


@pytest.fixture
def jobs(conn: Connection) -> None:
    """Add a job of each status. Its id is the status."""
    conn.execute("select enqueue_jobs('{t,t,t}', job_ids => '{pending,failed,again}')")
    conn.execute("select cancel_job('again')")
    conn.execute("update jobs set status = 'failed', finished_at = now(), failed_at = now() where id = 'failed'")


def worked(queue: JobQueue) -> None:
    """Run the due jobs, and check that they were completed."""
    assert Worker(queue, registry=REGISTRY).run_once() == 1
    assert [job.id for job in queue.get_completed_jobs()] == ["pending"]


def stored(queue: JobQueue) -> PostgresStorage:
    assert isinstance(queue.storage, PostgresStorage)
    return queue.storage


# Each method of a queue, and the roles that may call it. The error for the other roles names these roles.
QUEUE: dict[str, tuple[Callable[[JobQueue], Any], tuple[str, ...]]] = {
    "enqueue": (lambda queue: queue.enqueue("t"), (ENQUEUE, WORK, ADMIN)),
    "enqueue_many": (
        lambda queue: queue.enqueue_many([queue.new_job("t"), queue.new_job("t")]),
        (ENQUEUE, WORK, ADMIN),
    ),
    "get_job": (lambda queue: queue.get_job("failed"), (READ, WORK, ADMIN)),
    "list_jobs": (lambda queue: queue.list_jobs(), (READ, WORK, ADMIN)),
    "counts": (lambda queue: queue.counts(), (READ, WORK, ADMIN)),
    "stats": (lambda queue: stored(queue).stats(), (READ, WORK, ADMIN)),
    "workers": (lambda queue: stored(queue).workers(), (READ, WORK, ADMIN)),
    "export": (lambda queue: list(stored(queue).export_jobs()), (READ, WORK, ADMIN)),
    "retry": (lambda queue: queue.retry("failed"), (WORK, ADMIN)),
    "rescue": (lambda queue: stored(queue).rescue(), (WORK, ADMIN)),
    "unserved types": (lambda queue: stored(queue).unserved_types(), (READ, WORK, ADMIN)),
    "why": (lambda queue: queue.why("pending"), (READ, WORK, ADMIN)),
    "repair": (lambda queue: stored(queue).repair(), (WORK, ADMIN)),
    "prune": (lambda queue: stored(queue).prune(timedelta(0), ["failed"]), (WORK, ADMIN)),
    "run_once": (worked, (WORK, ADMIN)),
    "cancel": (lambda queue: queue.cancel("pending"), (ADMIN,)),
    "import": (lambda queue: stored(queue).import_jobs([]), (ADMIN,)),
}
# The same for the commands, with a part of their output.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "enqueue t": ((ENQUEUE, WORK, ADMIN), ("-",)),
    "list": ((READ, WORK, ADMIN), ("pending", "failed")),
    "show failed": ((READ, WORK, ADMIN), ("failed",)),
    "stats": ((READ, WORK, ADMIN), ("pending",)),
    "why pending": ((READ, WORK, ADMIN), ("No live worker serves",)),
    "retry failed": ((WORK, ADMIN), ("failed",)),
    "repair": ((WORK, ADMIN), ("0 pending jobs placed",)),
    "prune --days 0": ((WORK, ADMIN), ("1 jobs deleted",)),
    "cancel pending": ((ADMIN,), ("pending",)),
}


def named(roles: tuple[str, ...]) -> str:
    """Return the part of an error message that names the allowed roles."""
    *others, last = roles
    return f"grant the user the role {', '.join(others)} or {last}" if others else f"grant the user the role {last}"


def command(dsn: str, folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return subprocess.run(
        [sys.executable, "-m", "pgjobq", *words.split()],
        capture_output=True, text=True, check=False, timeout=60, cwd=folder, env=kept | {"PGJOBQ_DSN": dsn},
    )  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", QUEUE)
def test_queue_of_each_role(make_queue: Callable[[str], JobQueue], jobs: None, role: str, name: str) -> None:
    do, roles = QUEUE[name]
    queue = make_queue(role)
    if role in roles:
        do(queue)
        return
    with pytest.raises(StorageError) as refused:
        do(queue)
    assert str(refused.value).endswith(f"; {named(roles)}")


@pytest.mark.parametrize("role", ROLES)
def test_commands_of_each_role(login: Login, jobs: None, tmp_path: Path, role: str) -> None:
    dsn = login(role)
    for words, (roles, said) in COMMANDS.items():
        done = command(dsn, tmp_path, words)
        if role in roles:
            assert (done.returncode, done.stderr) == (0, ""), words
            assert all(text in done.stdout for text in said), done.stdout
        else:
            assert (done.returncode, done.stdout) == (1, ""), words
            assert done.stderr.startswith("pgjobq: permission denied for ")
            assert done.stderr.endswith(f"; {named(roles)}\n")


@pytest.mark.parametrize("role", [READ, WORK, ADMIN])
def test_check_by_each_role_that_may_read(login: Login, tmp_path: Path, role: str) -> None:
    done = command(login(role), tmp_path, "check")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "grant pg_read_all_stats to see those of other users" in done.stdout


def test_check_needs_the_right_to_read(login: Login, tmp_path: Path) -> None:
    done = command(login(ENQUEUE), tmp_path, "check")
    assert done.returncode == 1
    assert done.stderr.endswith(f"; {named((READ, WORK, ADMIN))}\n")


@pytest.mark.parametrize("role", ROLES)
def test_worker_command_of_each_role(
    login: Login, conn: Connection, tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    conn.execute("select enqueue_job('t', job_id => 'mine')")
    if role not in (WORK, ADMIN):
        done = command(login(role), tmp_path, "worker handlers")
        assert done.returncode == 1
        assert done.stderr.endswith(f"; {named((WORK, ADMIN))}\n")
        return
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    with subprocess.Popen(
        [sys.executable, "-m", "pgjobq", "worker", "handlers", "--keep", "1d"],
        cwd=tmp_path, env=kept | {"PGJOBQ_DSN": login(role)}, stderr=subprocess.PIPE, text=True,
    ) as worker:  # fmt: skip
        until(lambda: conn.execute("select from jobs where status = 'completed'").fetchone() is not None)
        worker.terminate()
        said = worker.communicate()[1]
    assert worker.returncode == 0
    assert "permission" not in said
    assert "error" not in said


def test_member_enqueues_in_its_own_transaction(
    make_queue: Callable[[str], JobQueue], login: Login, conn: Connection
) -> None:
    queue = make_queue(ENQUEUE)
    with psycopg.connect(login(ENQUEUE)) as own:
        queue.enqueue("t", connection=own)
        assert conn.execute("select count(*) from jobs").fetchone() == (0,)
        own.commit()
    assert conn.execute("select count(*) from jobs").fetchone() == (1,)


def test_error_for_a_login_without_a_role_names_all_roles(make_queue: Callable[[str], JobQueue]) -> None:
    with pytest.raises(StorageError, match=f"permission denied for schema pgjobq; {named(ROLES)}"):
        make_queue("").enqueue("t")


@pytest.mark.parametrize("role", ROLES)
def test_no_role_may_migrate(login: Login, conn: Connection, tmp_path: Path, role: str) -> None:
    done = command(login(role), tmp_path, "migrate")
    assert done.returncode == 1
    owner = conn.info.user
    assert done.stderr.startswith(f"pgjobq: schema pgjobq belongs to role {owner}, ")
    assert f"; connect as {owner}, or choose another schema" in done.stderr


def test_rights_are_read_from_the_grants(conn: Connection) -> None:
    """For every function and view, the error message names exactly the roles that may use it."""
    query = """
        select proname, array_agg(distinct rolname::text)
          from pg_proc join pg_roles on rolname = any (%(roles)s) and has_function_privilege(pg_roles.oid, pg_proc.oid, 'execute')
         where pronamespace = 'pgjobq'::regnamespace
         group by proname
        union all
        select relname, array_agg(rolname::text)
          from pg_class join pg_roles on rolname = any (%(roles)s) and has_table_privilege(pg_roles.oid, pg_class.oid, 'select')
         where relnamespace = 'pgjobq'::regnamespace and relkind in ('r', 'v')
         group by relname
    """
    granted = {name: set(roles) for name, roles in conn.execute(query, {"roles": list(ROLES)})}
    assert {name: set(roles) for name, roles in rights().items()} == granted
    public = {path.stem for path in (sql_dir() / "functions").glob("*.sql")}
    private = {path.stem for path in (sql_dir() / "functions" / "private").glob("*.sql")}
    assert public <= set(granted), "a function that a caller may use, and no role may call: see sql/roles.sql"
    assert not private & set(granted)


def test_right_that_no_role_has_belongs_to_the_owner() -> None:
    assert needed_for("permission denied for table jobs") == "connect as the owner of the schema"
