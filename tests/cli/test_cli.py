"""The command line as people and scripts use it: a process with output and an exit status."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from helpers.cli import DONE, NOT_DONE, NOT_FOUND, NOWHERE, USAGE, Cli, environment
from helpers.until import until
from psycopg.conninfo import conninfo_to_dict

from pgjobq import JobQueue
from pgjobq.devserver import find_bindir
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]


# -- help and usage --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["worker", "--help"], ["enqueue", "--help"], ["demo", "--help"]])
def test_help_imports_no_driver(words: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "pgjobq", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environment())
    assert "Usage: " in done.stdout
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "pgjobq.cli" in imported
    assert not imported & {"psycopg", "psycopg_pool", "sqlalchemy", "asyncio"}


def test_help_is_quick_and_lists_the_commands() -> None:
    def timed() -> tuple[float, str]:
        began = time.perf_counter()
        command = [sys.executable, "-m", "pgjobq", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environment())
        return time.perf_counter() - began, done.stdout

    runs = [timed() for _ in range(3)]
    assert min(seconds for seconds, _ in runs) < 1
    commands = {
        "demo",
        "dev",
        "migrate",
        "worker",
        "enqueue",
        "list",
        "show",
        "retry",
        "cancel",
        "stats",
        "check",
        "repair",
    }
    assert commands | {"prune"} <= set(re.findall(r"(?m)^  (\w+) ", runs[0][1]))


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["enqueue"],
        ["enqueue", "t", "--priority", "high"],
        ["list", "--limit", "many"],
        ["show"],
        ["worker"],
        ["migrate", "--unknown"],
    ],
)
def test_wrong_usage_exits_with_status_2(lone_cli: Cli, words: list[str]) -> None:
    done = lone_cli.run(*words)
    assert done.returncode == USAGE
    assert "Usage: " in done.stderr
    assert "Traceback" not in done.stderr


# -- the database ----------------------------------------------------------------------------------


def test_migrate_installs_the_schema_and_can_run_again(empty_cli: Cli) -> None:
    for words in (["enqueue", "t"], ["list"], ["stats"]):
        assert "run: pgjobq migrate" in empty_cli.complaint(NOT_DONE, *words)
    assert empty_cli.said("migrate").startswith("schema pgjobq is installed, at version ")
    assert empty_cli.said("migrate").startswith("schema pgjobq is up to date, at version ")
    job_id = empty_cli.said("enqueue", "t").strip()
    assert empty_cli.json("show", job_id)["status"] == "pending"


def test_migrate_into_a_schema_of_another_name(empty_cli: Cli, empty_dsn: str) -> None:
    assert "schema other is installed" in empty_cli.said("migrate", "--schema", "other", "--no-public-function")
    job_id = empty_cli.said("enqueue", "t", "--schema", "other").strip()
    assert [job["id"] for job in empty_cli.json("list", "--schema", "other")] == [job_id]
    assert "'pgjobq'" in empty_cli.complaint(NOT_DONE, "list")
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("select to_regproc('public.enqueue_job')").fetchone() == (None,)
    assert "schema" in empty_cli.complaint(USAGE, "migrate", "--schema", "pg_mine")


def test_migrate_refuses_a_schema_with_other_tables(empty_cli: Cli, empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("create schema pgjobq create table jobs (n int)")
    assert "schema" in empty_cli.complaint(NOT_DONE, "migrate")


def test_printed_sql_installs_by_psql(empty_cli: Cli, empty_dsn: str) -> None:
    psql = shutil.which("psql") or str(find_bindir() / "psql")
    script = empty_cli.said("migrate", "--print", env=environment())  # this needs no database
    command = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_dsn]
    for _ in range(2):  # the script can run again
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "ERROR" not in done.stderr
    call = [*command, "-A", "-t", "-c", """select enqueue_job('send_email', '{"to": "a@b.c"}', priority => 9)"""]
    job_id = subprocess.run(call, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    job = empty_cli.json("show", job_id)
    assert (job["type"], job["data"], job["priority"]) == ("send_email", {"to": "a@b.c"}, 9)
    assert "up to date" in empty_cli.said("migrate")


def test_dsn_comes_from_the_option_then_the_variable_then_libpq(cli: Cli, dsn: str) -> None:
    parts = conninfo_to_dict(dsn)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    libpq = {names[key]: str(value) for key, value in parts.items() if key in names}
    bad_libpq = {"PGHOST": "127.0.0.1", "PGPORT": "1"}
    ids = [
        cli.said("enqueue", "t", "--dsn", dsn, env=environment(PGJOBQ_DSN=NOWHERE, **bad_libpq)).strip(),
        cli.said("enqueue", "t", env=environment(PGJOBQ_DSN=dsn, **bad_libpq)).strip(),
        cli.said("enqueue", "t", env=environment(**libpq)).strip(),
    ]
    assert {job["id"] for job in cli.json("list")} == set(ids)


def test_every_command_accepts_a_url_that_names_a_driver(cli: Cli, dsn: str) -> None:
    parts = conninfo_to_dict(dsn)
    url = "postgresql+psycopg://{user}:{password}@{host}:{port}/{dbname}".format_map(parts)
    for command in ("migrate", "check", "list"):
        cli.said(command, "--dsn", url)


@pytest.mark.parametrize("command", [["list"], ["migrate"], ["check"], ["worker", "handlers"], ["enqueue", "t"]])
def test_unreachable_database_is_reported_in_one_line(lone_cli: Cli, command: list[str]) -> None:
    said = lone_cli.complaint(NOT_DONE, *command)
    assert "PostgreSQL does not answer" in said
    assert "s3cret" not in said


@pytest.mark.parametrize("command", [["list"], ["migrate"], ["check"]])
@pytest.mark.parametrize("bad", ["nosql://root@localhost/app", "nonsense", "host=127.0.0.1 colour=red"])
def test_invalid_dsn_is_reported_in_one_line(lone_cli: Cli, command: list[str], bad: str) -> None:
    assert "dsn: " in lone_cli.complaint(USAGE, *command, "--dsn", bad)


# -- jobs ------------------------------------------------------------------------------------------


def test_enqueue_with_every_option(cli: Cli) -> None:
    words = ["--priority", "9", "--queue", "mail", "--max-retries", "1", "--id", "mine"]
    at = ["--execute-at", "2090-01-31T09:00+01:00"]
    assert cli.said("enqueue", "send_email", '{"to": "Ünal", "n": [1, null]}', *words, *at) == "mine\n"
    job = cli.json("show", "mine")
    assert (job["type"], job["data"], job["queue"]) == ("send_email", {"to": "Ünal", "n": [1, None]}, "mail")
    assert (job["priority"], job["max_retries"], job["status"], job["attempts"]) == (9, 1, "pending", 0)
    assert datetime.fromisoformat(job["execute_at"]) == datetime.fromisoformat("2090-01-31T09:00+01:00")
    later = cli.json("show", cli.said("enqueue", "t", "--delay", "60").strip())
    waits = datetime.fromisoformat(later["execute_at"]) - datetime.fromisoformat(later["created_at"])
    assert timedelta(seconds=60) <= waits < timedelta(seconds=61)
    assert later["data"] == {}


def test_enqueue_reads_data_from_stdin(cli: Cli) -> None:
    data = {"text": "ü" * 200_000}
    job_id = cli.said("enqueue", "t", "-", stdin=json.dumps(data)).strip()
    assert cli.json("show", job_id)["data"] == data


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["t", "{to: a}"], "data: .*use a JSON object in single quotes"),
        (["t", ""], "data: .*use a JSON object in single quotes"),
        (["t", "[1]"], "data: "),
        (["t", "null"], "data: "),
        (["t", '{"a": NaN}'], r"data\.a: "),
        (["t", '{"a": {"b": ["x\\u0000"]}}'], r"data\.a\.b\[0\]: "),
        (["t", "[" * 100_000], "data: "),
        (["t", '{"n": ' + "9" * 5000 + "}"], "data: "),
        (["t", "--priority", "2147483648"], "--priority: "),
        (["t", "--max-retries", "-1"], "--max-retries: "),
        (["t", "--delay", "-1"], "--delay: "),
        (["t", "--delay", "nan"], "--delay: "),
        (["t", "--delay", "60", "--execute-at", "2090-01-31T09:00+01:00"], "--delay"),
        (["t", "--execute-at", "tomorrow"], "--execute-at: 'tomorrow' is not a time; use "),
        (["t", "--execute-at", "2090-01-31T09:00"], "--execute-at: "),
        (["t", "--queue", ""], "--queue: "),
        (["t", "--id", ""], "--id: "),
        (["", "{}"], "type: "),
        (["x" * 10_000], "type: "),
    ],
)
def test_invalid_job_is_refused_before_connecting(lone_cli: Cli, words: list[str], message: str) -> None:
    assert re.match(f"pgjobq: {message}", lone_cli.complaint(USAGE, "enqueue", *words))


def test_enqueue_of_an_id_that_exists_is_refused(cli: Cli, conn: Connection) -> None:
    assert cli.said("enqueue", "t", "--id", "a") == "a\n"
    assert "job_id: " in cli.complaint(NOT_DONE, "enqueue", "t", "--id", "a")
    assert conn.execute("select count(*) from jobs").fetchone() == (1,)


def test_list_filters_and_prints_a_table(cli: Cli, queue: JobQueue, storage: PostgresStorage) -> None:
    for n in range(5):
        queue.enqueue("greet", job_id=f"d{n}")
    queue.enqueue("send", queue="mail", job_id="m0", priority=9)
    assert storage.dequeue() is not None
    storage.fail("m0", "ValueError: [bold]no luck[/]\nTraceback")
    assert [job["id"] for job in cli.json("list")] == ["m0", "d4", "d3", "d2", "d1", "d0"]
    assert [job["id"] for job in cli.json("list", "--limit", "2")] == ["m0", "d4"]
    assert cli.json("list", "--limit", "0") == []
    assert [job["id"] for job in cli.json("list", "--status", "failed")] == ["m0"]
    assert cli.json("list", "--queue", "none") == []
    assert [job["id"] for job in cli.json("list", "--queue", "mail")] == ["m0"]
    table = cli.said("list")
    assert table.splitlines()[0].split() == [
        "id",
        "type",
        "queue",
        "status",
        "attempts",
        "created_at",
        "execute_at",
        "error",
    ]
    assert "ValueError: [bold]no luck[/]" in table  # markup is printed as it is
    assert "--status: 'done' is not a status; use pending, running" in cli.complaint(USAGE, "list", "--status", "done")
    assert "limit: " in cli.complaint(USAGE, "list", "--limit", "-1")


def test_show_prints_readable_lines(cli: Cli, queue: JobQueue) -> None:
    queue.enqueue("greet", {"name": "Ünal"}, job_id="a")
    lines = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[-1] for line in cli.said("show", "a").splitlines()}
    assert (lines["id"], lines["status"], lines["data"]) == ("a", "pending", '{"name": "Ünal"}')
    assert lines["crashes"] == "0"
    assert "there is no job 'b'" in cli.complaint(NOT_FOUND, "show", "b")
    assert "there is no job 'b'" in cli.complaint(NOT_FOUND, "show", "b", "--json")


def test_retry_and_cancel(cli: Cli, queue: JobQueue, storage: PostgresStorage) -> None:
    for name in "abc":
        queue.enqueue("t", job_id=name)
    storage.dequeue_many(3)
    storage.fail("a", "broken")
    storage.fail("b", "broken")
    storage.complete("c")
    assert cli.said("retry", "a", "b", "--delay", "60") == "a\nb\n"
    job = cli.json("show", "a")
    assert (job["status"], job["error"]) == ("pending", "broken")
    waits = datetime.fromisoformat(job["execute_at"]) - datetime.fromisoformat(job["updated_at"])
    assert timedelta(seconds=59) < waits < timedelta(seconds=61)
    assert cli.said("cancel", "a") == "a\n"
    assert "'a' is already finished" in cli.complaint(NOT_DONE, "cancel", "a")
    assert "'c' is completed" in cli.complaint(NOT_DONE, "retry", "c")
    assert "there is no job 'x'" in cli.complaint(NOT_FOUND, "retry", "x")
    assert "there is no job 'x'" in cli.complaint(NOT_FOUND, "cancel", "x")
    assert "delay: " in cli.complaint(USAGE, "retry", "a", "--delay", "-1")
    assert cli.json("show", "a")["status"] == "cancelled"


def test_cancel_by_filter(cli: Cli, queue: JobQueue) -> None:
    for n in range(4):
        queue.enqueue("send", queue="mail", job_id=f"m{n}")
    queue.enqueue("print", job_id="p")
    assert "--yes: use this option if" in cli.complaint(USAGE, "cancel", "--queue", "mail")
    assert cli.said("cancel", "--queue", "mail", "--max", "1", "--yes", "--reason", "no more") == "1 jobs cancelled\n"
    assert (cli.json("show", "m0")["status"], cli.json("show", "m0")["error"]) == ("cancelled", "no more")
    assert (
        cli.said("cancel", "--type", "send", "--created-before", "2001-01-01T00:00Z", "--yes") == "0 jobs cancelled\n"
    )
    assert (
        cli.said("cancel", "--type", "send", "--created-before", "2101-01-01T00:00Z", "--yes") == "3 jobs cancelled\n"
    )
    assert cli.json("show", "p")["status"] == "pending"
    assert "use the ids of jobs, or else" in cli.complaint(USAGE, "cancel")
    assert cli.said("cancel", "--unique-key", "none", "--yes") == "0 jobs cancelled\n"
    assert "use the ids of jobs, or else" in cli.complaint(USAGE, "cancel", "p", "--type", "print")
    assert "--max: " in cli.complaint(USAGE, "cancel", "p", "--max", "1")
    assert "--max: 0 is not" in cli.complaint(USAGE, "cancel", "--type", "print", "--max", "0", "--yes")
    assert "--created-before: 'noon' is not a time" in cli.complaint(
        USAGE, "cancel", "--created-before", "noon", "--yes"
    )
    said = cli.complaint(USAGE, "cancel", "--created-before", "2101-01-01T00:00", "--yes")
    assert "--created-before: '2101-01-01T00:00' has no offset from UTC" in said
    assert cli.json("show", "p")["status"] == "pending"


def test_unknown_id_does_not_stop_the_others(cli: Cli, queue: JobQueue) -> None:
    for name in "ab":
        queue.enqueue("t", job_id=name)
    done = cli.run("cancel", "a", "nobody", "b")
    assert (done.returncode, done.stdout) == (NOT_FOUND, "a\nb\n")
    assert done.stderr == "pgjobq: there is no job 'nobody'\n"


def test_stats(cli: Cli, queue: JobQueue, storage: PostgresStorage) -> None:
    for name in "abc":
        queue.enqueue("t", job_id=name)
    queue.enqueue("t", queue="mail", delay=60)
    storage.dequeue()
    found = cli.json("stats")
    jobs = {(row["queue"], row["status"]): row["jobs"] for row in found["jobs"]}
    assert jobs == {("default", "pending"): 2, ("default", "running"): 1, ("mail", "pending"): 1}
    assert all(isinstance(row["jobs"], int) for row in found["jobs"])
    ages = {(row["queue"], row["status"]): row["oldest_due_age"] for row in found["jobs"]}
    assert 0 <= float(ages["default", "pending"]) < 60
    assert ages["mail", "pending"] is None
    (worker,) = found["workers"]
    assert (worker["alive"], worker["running"], worker["queues"]) == (True, 1, None)
    table = cli.said("stats")
    assert re.search(r"(?m)^default +pending +2 +\d", table)
    assert re.search(r"(?m)^mail +pending +1", table)
    assert "Workers" in table


def test_prune_deletes_finished_jobs_past_the_age(
    cli: Cli, queue: JobQueue, storage: PostgresStorage, conn: Connection
) -> None:
    for name in ("old", "young", "broken", "waits"):
        queue.enqueue("t", job_id=name)
    storage.dequeue_many(3)
    storage.complete_many([job for job in queue.get_running_jobs() if job.id != "broken"])
    storage.fail("broken", "x")
    aged = "update jobs set created_at = created_at - interval '10 days', updated_at = updated_at - interval '10 days', finished_at = finished_at - interval '10 days', failed_at = failed_at - interval '10 days' where id in ('old', 'broken', 'waits')"
    conn.execute(aged)
    assert cli.said("prune", "--days", "20") == "0 jobs deleted\n"
    assert cli.said("prune") == "1 jobs deleted\n"
    assert {job.id for job in queue.list_jobs()} == {"young", "broken", "waits"}
    assert cli.said("prune", "--failed") == "1 jobs deleted\n"
    for days in ("-1", "nan", "1e300"):
        cli.complaint(USAGE, "prune", "--days", days)
    assert {job.id for job in queue.list_jobs()} == {"young", "waits"}


# -- check -----------------------------------------------------------------------------------------


def test_check_finds_a_database_that_is_not_migrated(empty_cli: Cli) -> None:
    done = empty_cli.run("check")
    assert done.returncode == NOT_DONE
    assert re.match(r"FAIL  schema: .*\n +Run: pgjobq migrate\n$", done.stdout)
    found = empty_cli.run("check", "--json")
    assert found.returncode == NOT_DONE
    assert [finding["ok"] for finding in json.loads(found.stdout)] == [False]


def test_check_succeeds_if_nothing_is_wrong(cli: Cli, connect: Callable[..., Connection]) -> None:
    young = connect(autocommit=False)
    young.execute("set transaction isolation level repeatable read")
    young.execute("select 1")  # this snapshot is not old
    findings = cli.json("check")
    assert [finding["name"] for finding in findings] == [
        "server",
        "schema",
        "listen",
        "notification queue",
        "oldest snapshot",
        "publications",
        "triggers",
        "misplaced jobs",
        "pauses",
        "unserved queues",
        "unserved types",
        "oldest jobs",
    ]
    assert all(finding["ok"] for finding in findings)
    lines = cli.said("check").splitlines()
    assert len(lines) == 12
    assert all(line.startswith("ok    ") for line in lines)


def test_check_finds_a_queue_without_a_worker(cli: Cli, queue: JobQueue) -> None:
    queue.enqueue("t", queue="later", delay=60)
    cli.said("check")  # the job is not due yet
    queue.enqueue("t", queue="mail")
    done = cli.run("check")
    assert done.returncode == NOT_DONE
    assert "FAIL  unserved queues: due jobs without a worker: mail (1)" in done.stdout
    assert "pgjobq worker MODULE --queues NAME" in done.stdout
    worker = cli.start("worker", "handlers", "--queues", "default")
    until(lambda: cli.json("stats")["workers"])
    assert cli.run("check").returncode == NOT_DONE  # this worker serves another queue
    worker.terminate()
    assert worker.wait(10) == DONE


def test_stats_and_check_report_types_that_no_worker_takes(cli: Cli, queue: JobQueue) -> None:
    left = queue.enqueue("foreign", queue="mail")
    assert cli.json("stats")["unserved_types"] == [{"queue": "mail", "type": "foreign", "jobs": 1}]
    assert re.search(r"(?m)^mail +foreign +1$", cli.said("stats"))
    worker = cli.start("worker", "handlers")
    until(
        lambda: (
            "FAIL  unserved types: due jobs of types that no worker takes: foreign (1 in mail)"
            in cli.run("check").stdout
        )
    )
    worker.terminate()
    assert worker.wait(10) == DONE
    worker = cli.start("worker", "handlers", "--fail-unknown")
    until(lambda: (found := queue.get_job(left)) and found.status == "failed")
    worker.terminate()
    assert worker.wait(10) == DONE


def test_check_finds_an_old_snapshot(connect: Callable[..., Connection], dsn: str, monkeypatch: Any) -> None:
    from pgjobq.postgres import doctor

    # The real limit is a minute, which is too long for a test.
    monkeypatch.setattr(doctor, "OLD_SNAPSHOT", 0.1)
    holder = connect(autocommit=False)
    holder.execute("set application_name = 'analyst'")
    holder.execute("set transaction isolation level repeatable read")
    holder.execute("select 1")
    time.sleep(0.2)
    (finding,) = [found for found in doctor.examine(dsn, "pgjobq") if found.name == "oldest snapshot"]
    assert not finding.ok
    assert f"session {holder.info.backend_pid} of postgres (analyst, idle in transaction), held " in finding.detail
    assert "pg_terminate_backend" in finding.remedy
