"""Tests that every code block of the README and the docs runs, and that the reference is complete."""

from __future__ import annotations

import configparser
import contextlib
import importlib
import os
import re
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

import pgjobq
from pgjobq.cli import load
from pgjobq.declarations import Declarations
from pgjobq.devserver import find_bindir
from pgjobq.handlers import default_registry

Connection = psycopg.Connection[Any]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
ELSEWHERE = {DOCS / "howto" / "django.md"}  # tests/in_django runs its blocks, in a project
LANGUAGES = {"python", "sql", "sh", "js", "go", "ini"}

FENCE = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"postgresql(\+psycopg)?://(localhost|pgbouncer:6432)/app")
MARIADB = "mysql+pymysql://user:password@localhost:3306/mydb"
REDIS, MONGODB = "redis://localhost:6379/0", "mongodb://localhost:27017/mydb"
DYNAMODB = "dynamodb://eu-central-1/jobs"
OLD = """
create table jobs (
    id varchar primary key, type varchar not null, data text not null, status varchar not null, error text,
    attempts integer default 0, max_retries integer default 3, priority integer default 5, execute_at timestamp,
    created_at timestamp default current_timestamp, updated_at timestamp default current_timestamp
);
insert into jobs (id, type, data, status) values ('old', 'greet', '{"name": "old"}', 'completed');
"""
DUE_OR_RUNNING = """
select exists (select from pgjobq.jobs
                where status = 'running' or status = 'pending' and (execute_at is null or execute_at <= now()))
"""
WORKER_LIVES = "select exists (select from pgjobq.worker_status where alive)"
PATIENCE = 30.0  # seconds for a worker to run what a page enqueued

# Replacements for the commands on a page. Commands that run until they are stopped are stopped when their work is
# done. Commands that would install or build something only check that the files exist in the project.
PGJOBQ = f"""#!{sys.executable}
import os, signal, subprocess, sys, time
from pathlib import Path
import psycopg
process = subprocess.Popen([sys.executable, "-m", "pgjobq", *sys.argv[1:]])
def done():
    if sys.argv[1] == "dev":
        return (Path(os.environ["XDG_DATA_HOME"]) / "pgjobq/dev/dsn").exists()
    dsn = sys.argv[sys.argv.index("--dsn") + 1] if "--dsn" in sys.argv else os.environ["PGJOBQ_DSN"]
    if not dsn.startswith("postgresql:"):
        from pgjobq import open_storage
        storage = open_storage(dsn)
        try:
            return storage.list_jobs("completed") and not storage.list_jobs("pending") + storage.list_jobs("running")
        finally:
            storage.close()
    with psycopg.connect(dsn) as conn:
        lives, left = (conn.execute(query).fetchone()[0] for query in ({WORKER_LIVES!r}, {DUE_OR_RUNNING!r}))
        return lives and not left
if sys.argv[1] in ("worker", "dev"):
    deadline = time.monotonic() + {PATIENCE}
    while not done() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    late = not done()
    process.send_signal(signal.SIGTERM)
    sys.exit(process.wait(30) or late)
sys.exit(process.wait())
"""
PYTEST = f"""#!/bin/sh
exec {sys.executable} -m pytest -q -p no:cacheprovider --basetemp=of-tests "$@"
"""
MAKE = f"""#!/bin/sh
exec {shutil.which("make")} --dry-run -C {ROOT} "$@"
"""
PIP = f"""#!{sys.executable}
import re, sys, tomllib
install, *places = sys.argv[1:]
assert install == "install", install
project = tomllib.load(open({str(ROOT / "pyproject.toml")!r}, "rb"))["project"]
for place in places:  # only paths of the source tree are allowed, because a package index may have another project of the same name
    extras = re.fullmatch(r"[.](?:\\[([\\w,]+)\\])?", place)
    assert extras and set((extras[1] or "demo").split(",")) <= set(project["optional-dependencies"]), place
"""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced code block of a page."""

    language: str
    title: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text())
    return [Block(language=language, title=title, text=text) for language, title, text in found]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def url_of(dsn: str) -> str:
    part = {key: quote(str(value), safe="") for key, value in conninfo_to_dict(dsn).items()}
    secret = f":{part['password']}" if part.get("password") else ""
    return f"://{part['user']}{secret}@{part['host']}:{part['port']}/{part['dbname']}"


class Page:
    """Runs the blocks of one page in order: one database, one folder, one Python namespace."""

    def __init__(self, folder: Path, dsn: str, conn: Connection, others: dict[str, Callable[[], str]]) -> None:
        self._folder, self._url, self._conn, self._others = folder, url_of(dsn), conn, others
        self._namespace: dict[str, Any] = {"__name__": "page"}

    def run(self, block: Block) -> None:
        text = PLACEHOLDER.sub(lambda found: f"postgresql{found[1] or ''}{self._url}", block.text)
        for written, url in self._others.items():
            if written in text:
                text = text.replace(written, url())
        getattr(self, f"_{block.language}")(text, block.title)

    def _python(self, text: str, title: str) -> None:
        if title:  # save it as a module, because later blocks import it
            (self._folder / title).write_text(text)
            importlib.invalidate_caches()
            importlib.import_module(title.removesuffix(".py"))
            return
        with self._stopping() if ".run()" in text else contextlib.nullcontext():
            exec(compile(text, "block", "exec"), self._namespace)  # noqa: S102  # our own documentation

    def _sql(self, text: str, title: str) -> None:
        if title != "signature":  # test_sql_functions compares the signatures with the functions
            self._conn.execute(text.encode())

    def _sh(self, text: str, title: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=self._folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"

    def _js(self, text: str, title: str) -> None:
        if node := shutil.which("node"):
            (self._folder / "block.mjs").write_text(text)
            subprocess.run([node, "--check", "block.mjs"], cwd=self._folder, check=True)
        self._prepare(text)

    def _go(self, text: str, title: str) -> None:
        if gofmt := shutil.which("gofmt"):
            subprocess.run([gofmt, "-e"], input=text.encode(), check=True, stdout=subprocess.DEVNULL)
        self._prepare(text)

    def _ini(self, text: str, title: str) -> None:
        configparser.ConfigParser(interpolation=None).read_string(text)

    def _prepare(self, text: str) -> None:
        """Have PostgreSQL parse the SQL statements in a program of another language."""
        statements = re.findall(r"[\"`](select [^\"`]*)[\"`]", text)
        assert statements
        for statement in statements:
            self._conn.execute(f"prepare block as {statement}".encode())
            self._conn.execute("deallocate block")

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        """Send SIGTERM to a Worker.run() in the block when no job is left to run."""
        ended = threading.Event()
        late = False
        own = signal.getsignal(signal.SIGTERM)

        def stop() -> None:
            nonlocal late
            deadline = time.monotonic() + PATIENCE
            # Send it only while the worker handles the signal, because it would end the tests at any other time.
            while not ended.wait(0.1):
                late = time.monotonic() > deadline
                left = self._conn.execute(DUE_OR_RUNNING).fetchone() != (False,)
                if signal.getsignal(signal.SIGTERM) is not own and (late or not left):
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

        thread = threading.Thread(target=stop)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        assert not late, "the worker did not finish its jobs in time"

    def close(self) -> None:
        for value in self._namespace.values():
            ours = isinstance(value, pgjobq.JobQueue | pgjobq.BaseStorage)
            close = getattr(value, "close" if ours else "dispose", None)
            if close is not None and not isinstance(value, type):
                close()


@pytest.fixture
def others(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], str]]:
    """Map the addresses of other databases on the pages to functions that return the address of a test's database.

    A page is skipped if its database is not installed.
    """

    def served(fixture: str) -> str:
        url: str = request.getfixturevalue(fixture)
        return url

    def mariadb() -> str:
        name = f"docs_{secrets.token_hex(4)}"
        url = served("mariadb_url")
        server = sqlalchemy.create_engine(url)
        with server.begin() as conn:
            conn.execute(sqlalchemy.text(f"create database {name}"))

        def drop() -> None:
            with server.begin() as conn:
                conn.execute(sqlalchemy.text(f"drop database {name}"))
            server.dispose()

        request.addfinalizer(drop)
        return f"{url.rpartition('/')[0]}/{name}"

    def dynamodb() -> str:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "docs")
        return f"dynamodb://docs/docs_{secrets.token_hex(4)}?endpoint={served('dynamodb_url')}"

    return {
        MARIADB: cache(mariadb),
        REDIS: cache(lambda: f"{served('redis_url')}/9"),
        MONGODB: cache(lambda: f"{served('mongo_url')}/docs_{secrets.token_hex(4)}"),
        DYNAMODB: cache(dynamodb),
    }


@pytest.fixture
def page(
    tmp_path: Path,
    dsn: str,
    migrated_database: Connection,
    monkeypatch: pytest.MonkeyPatch,
    others: dict[str, Callable[[], str]],
) -> Iterator[Callable[[], Page]]:
    """Return a function that creates a Page, which is closed at the end of the test."""
    conn = migrated_database
    for path in (tmp_path, *list(tmp_path.parents)[:3]):  # the dev server's user needs access
        if path.stat().st_uid == os.geteuid():
            path.chmod(path.stat().st_mode | 0o011)
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, program in {"pgjobq": PGJOBQ, "make": MAKE, "pip": PIP, "pytest": PYTEST}.items():
        (commands / name).write_text(program)
        (commands / name).chmod(0o755)
    psql = shutil.which("psql") or find_bindir() / "psql"
    (commands / "psql").symlink_to(psql)
    (tmp_path / "sql").symlink_to(ROOT / "sql")
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("PGJOBQ_DSN", f"postgresql{url_of(dsn)}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(default_registry, "_by_type", {})
    monkeypatch.setattr(default_registry, "_by_function", {})
    monkeypatch.setattr(default_registry, "declarations", Declarations())
    modules, roles = set(sys.modules), set(conn.execute("select rolname from pg_roles").fetchall())
    made: list[Page] = []

    def make() -> Page:
        made.append(Page(tmp_path, dsn, conn, others))
        return made[-1]

    yield make
    for one in made:
        one.close()
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    for (role,) in set(conn.execute("select rolname from pg_roles").fetchall()) - roles:
        conn.execute(f'drop role "{role}"')


@pytest.mark.parametrize("path", [path for path in PAGES if blocks_of(path) and path not in ELSEWHERE], ids=named)
def test_blocks_run(path: Path, page: Callable[[], Page]) -> None:
    place = page()
    if "old.db" in path.read_text():  # a file that the reader of this page already has
        old = sqlite3.connect("old.db")
        old.executescript(OLD)
        old.close()
    for block in blocks_of(path):
        place.run(block)


def test_language_of_every_block_is_checked() -> None:
    assert {block.language for path in PAGES for block in blocks_of(path)} == LANGUAGES
    for path in PAGES:
        assert path.read_text().count("```") == 2 * len(blocks_of(path)), f"{path}: a code fence cannot be parsed"


def test_pages_are_built(tmp_path: Path) -> None:
    """With --strict, the build fails for a broken link and for an unknown name in the Python reference."""
    for name in ("docs", "pgjobq"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run([zensical, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = {path.parent.relative_to(tmp_path / "site") for path in (tmp_path / "site").rglob("index.html")}
    names = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    assert built == {name.parent if name.name == "index" else name for name in names}


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


# -- the reference is complete -------------------------------------------------------------------------

CLI = (DOCS / "reference" / "cli.md").read_text()
SQL = (DOCS / "reference" / "sql.md").read_text()
PYTHON = (DOCS / "reference" / "python.md").read_text()


def section(text: str, heading: str) -> str:
    """Return the text between this heading and the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def commands() -> dict[str, set[str]]:
    """Return the options of each command."""
    return {
        name: {text for option in command.params for text in (*option.opts, *option.secondary_opts) if text[0] == "-"}
        for name, command in load().commands.items()
    }


def test_commands() -> None:
    headings = set(re.findall(r"^## (.*)", CLI, re.MULTILINE)) - {"Exit statuses", "Environment"}
    assert headings == set(commands())


@pytest.mark.parametrize("name", commands())
def test_options(name: str) -> None:
    lines = re.findall(r"^- (`.*?)(?::|$)", section(CLI, name), re.MULTILINE)
    assert set(re.findall(r"`(--?[a-z-]+)`", "\n".join(lines))) == commands()[name] - {"--help"}


def test_environment() -> None:
    used = {name for path in (ROOT / "pgjobq").rglob("*.py") for name in re.findall(r"PGJOBQ_\w+", path.read_text())}
    assert set(re.findall(r"PGJOBQ_\w+", section(CLI, "Environment"))) == used


def public_functions(conn: Connection) -> dict[str, int]:
    """Return the oids of the public functions, by name."""
    query = """
        select proname, oid::int
          from pg_proc
         where pronamespace = 'pgjobq'::regnamespace
           and coalesce(obj_description(oid, 'pg_proc'), '') !~ '^(Private|Trigger):'
    """
    return dict(conn.execute(query).fetchall())


def signatures() -> dict[str, str]:
    """Return the signatures in the reference, by the heading above them."""
    return dict(re.findall(r'^### (\w+)\n\n```sql title="signature"\n(.*?)^```', SQL, re.MULTILINE | re.DOTALL))


def test_sql_functions(conn: Connection) -> None:
    functions = public_functions(conn)
    assert set(signatures()) == set(functions)
    described = "select pg_get_function_arguments(%s), pg_get_function_result(%s)"
    conn.execute("create schema stubs")
    for name, oid in functions.items():
        conn.execute(f"create function stubs.{signatures()[name]} language plpgsql as 'begin end'".encode())
        stub = conn.execute("select oid::int from pg_proc where oid::regproc::text = %s", [f"stubs.{name}"]).fetchone()
        assert stub is not None
        written, real = (conn.execute(described, [one, one]).fetchone() for one in (stub[0], oid))
        assert written == real


def test_sql_views_and_columns(conn: Connection) -> None:
    query = """
        select relname, attname
          from pg_class join pg_attribute on attrelid = pg_class.oid and attnum > 0
         where relnamespace = 'pgjobq'::regnamespace and (relkind = 'v' or relname = 'jobs' and relkind = 'r')
    """
    columns = conn.execute(query).fetchall()
    assert {relation for relation, _ in columns} == {
        "jobs",
        "job_stats",
        "worker_status",
        "queues",
        "paused_types",
        "failures",
        "actions",
        "job_progress",
        "job_logs",
    }
    for relation, column in columns:
        assert f"`{column}`" in section(SQL, "The table jobs" if relation == "jobs" else relation)


def test_sql_roles_and_errors(conn: Connection) -> None:
    roles = conn.execute("select rolname from pg_roles where rolname ~ '^pgjobq_(enqueue|work|read|admin)$'").fetchall()
    assert {role for (role,) in roles} == set(re.findall(r"^\| `(pgjobq_\w+)`", section(SQL, "Roles"), re.MULTILINE))
    raised = {code for path in (ROOT / "sql").rglob("*.sql") for code in re.findall(r"JQ\d{3}", path.read_text())}
    assert raised == set(re.findall(r"JQ\d{3}", section(SQL, "Errors")))


def test_python_names() -> None:
    written = re.findall(r"^::: pgjobq\.(\w+)$", PYTHON, re.MULTILINE)
    assert sorted(written) == sorted(pgjobq.__all__)
