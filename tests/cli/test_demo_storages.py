"""The demo on other databases than PostgreSQL: to the end, and interrupted."""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.demos import ORDERS, Demo
from helpers.places import place

from pgjobq import open_storage
from pgjobq.demo.anywhere import QUEUE
from pgjobq.demo.parts import Interruption
from pgjobq.signals import SIGNALS

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the test looks for processes in /proc")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A TMPDIR."""
    folder = Path(tempfile.mkdtemp(prefix="demo-of-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "redis"])
def test_every_order_gets_its_invoice(
    temporary: Path, demos: list[Demo], kind: str, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{temporary}/demo.db" if kind == "sqlite" else place(kind, request, temporary)
    storage = open_storage(url)
    storage.enqueue("mine", "of-the-user", {})  # the demo must not run this job
    storage.close()
    demos.append(demo := Demo(temporary, "--dsn", url, "--folder", str(temporary / "out")))
    status, output = demo.ended()
    assert status == 0, output
    assert len(list((temporary / "out").glob("invoice-*.html"))) == ORDERS
    assert f"jobs           {ORDERS} completed" in output
    assert f"invoices       {ORDERS} of {ORDERS}, in {temporary / 'out'}" in output
    assert re.search(r"start latency  p50 \d+\.\d ms, p99 \d+\.\d ms, from its enqueue to its start", output)
    assert "WARNING" not in output
    shown = re.sub(r"//.*@", "//", url)
    assert f"pgjobq list --dsn '{shown}'" in output
    assert "password" not in output
    assert demo.processes() == []
    assert demo.left() == (["demo.db", "out"] if kind == "sqlite" else ["out"])
    storage = open_storage(url)
    theirs = storage.get_job("mine")
    assert theirs is not None
    assert (theirs.status, theirs.attempts) == ("pending", 0)
    assert {job.queue for job in storage.list_jobs("completed")} == {QUEUE}
    storage.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", ["at its start", "while orders come in"])
def test_interrupted_demo_leaves_the_users_database_and_no_unfinished_job(
    temporary: Path, demos: list[Demo], number: signal.Signals, moment: str
) -> None:
    demos.append(demo := Demo(temporary, "--dsn", f"sqlite:///{temporary}/demo.db"))
    if moment == "at its start":
        time.sleep(0.4)
    else:
        assert demo.process.stdout is not None
        while "3. Orders come in" not in (said := demo.process.stdout.readline()):
            assert said, "the demo ended before orders came in"
        time.sleep(0.3)
    demo.process.send_signal(number)
    status, output = demo.ended()
    assert status in (130, -number), output
    assert "Traceback" not in output
    assert demo.processes() == []
    assert demo.left() in ([], ["demo.db"])
    if demo.left():
        with sqlite3.connect(temporary / "demo.db") as conn:
            tables = conn.execute("select count(*) from sqlite_master where name = 'jobs'").fetchone()
            states = conn.execute("select distinct status from jobs").fetchall() if tables == (1,) else []
        conn.close()
        assert {state for (state,) in states} <= {"completed", "cancelled"}


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    """An Interruption, which handles the process's signals. The handlers are restored at the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield Interruption()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_interruption_takes_effect_at_the_next_pause(interruption: Interruption, number: signal.Signals) -> None:
    interruption.pause(0)
    signal.raise_signal(number)  # as if during a call of the storage
    with pytest.raises(KeyboardInterrupt):
        interruption.pause(60)
    signal.raise_signal(number)  # the cleanup is not interrupted
    signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_second_interruption_takes_effect_at_once(interruption: Interruption, number: signal.Signals) -> None:
    signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    signal.raise_signal(number)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--dsn", "postgresql://h/d"], 2, "--dsn: the demo starts its own PostgreSQL"),
        (["--dsn", "sqlite:///demo.db", "--keep"], 2, "--keep: there is no server to keep with --dsn"),
        (["--dsn", "nosql://h/d"], 2, "dsn: no storage supports nosql://"),
        (["--dsn", "mysql://u:s3cret@127.0.0.1:1/d"], 1, "does not answer"),
        (["--dsn", "sqlite:///:memory:"], 2, "a database in memory"),
    ],
)
def test_unsuitable_database_is_refused(
    temporary: Path, demos: list[Demo], words: list[str], status: int, message: str
) -> None:
    demos.append(demo := Demo(temporary, *words))
    ended, output = demo.ended()
    assert ended == status, output
    assert output.startswith("pgjobq: ")
    assert message in output
    assert output.count("\n") == 1
    assert "s3cret" not in output
    assert demo.left() == []
