"""The development server: its life, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgjobq.devserver import DevServer, DevServerError, DevServerRunning, default_folder, find_bindir


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie that init has not reaped yet is gone, too.
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def eventually(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def test_temporary_server_leaves_nothing() -> None:
    with DevServer(settings={"work_mem": "7MB"}) as server:
        folder, pid = server.folder, server.pid
        assert folder is not None
        assert pid is not None
        with psycopg.connect(server.dsn) as conn:
            assert conn.execute("select current_setting('work_mem'), current_setting('fsync')").fetchone() == (
                "7MB",
                "off",
            )
            assert conn.execute("select current_setting('listen_addresses')").fetchone() == ("127.0.0.1",)
        # Without the password nobody gets in.
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn.replace("postgres:", "postgres:not"))
    assert gone(pid)
    assert not folder.exists()
    server.stop()


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that the server's user gets through to, also when that is not this one."""
    for path in (tmp_path, *list(tmp_path.parents)[:3]):
        if path.stat().st_uid == os.geteuid():
            path.chmod(path.stat().st_mode | 0o011)
    return tmp_path


def test_persistent_server_keeps_its_data_and_says_where_it_runs(open_folder: Path) -> None:
    folder = open_folder / "dev"
    with DevServer(folder) as server:
        dsn = server.dsn
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("create table kept (n int)")
        with pytest.raises(DevServerRunning, match="runs in") as running, DevServer(folder):
            pass
        assert running.value.dsn == dsn
        assert server.pid is not None  # the refused one did no harm
    with DevServer(folder, port=int(dsn.rsplit(":", 1)[1].split("/")[0])) as server:
        assert server.dsn == dsn
        with psycopg.connect(dsn) as conn:
            assert conn.execute("select count(*) from kept").fetchone() == (0,)


def test_server_ends_with_a_parent_that_is_killed(open_folder: Path) -> None:
    program = "from pgjobq.devserver import DevServer; s = DevServer().start(); print(s.pid, flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(open_folder)},
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    parent.stdin.close()
    eventually(lambda: gone(pid))


def test_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with DevServer() as server:
        port = int(server.dsn.rsplit(":", 1)[1].split("/")[0])
        with pytest.raises(DevServerError, match=f"did not start on port {port}"):
            DevServer(port=port).start()


def test_programs_named_wrongly_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGJOBQ_PG_BIN", str(tmp_path))
    with pytest.raises(DevServerError, match="PGJOBQ_PG_BIN: there is no initdb"):
        find_bindir()


def test_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "pgjobq" / "dev"
