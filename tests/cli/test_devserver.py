"""The development server: it starts, keeps or removes its data, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from helpers.until import until

from pgjobq.devserver import DevServer, DevServerError, DevServerRunning, default_folder, find_bindir, temporary_root

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="PostgreSQL refuses to run as root, so this is only needed as root"
)
RUN_ONE = """
import sys, time
from pgjobq.devserver import DevServer
with DevServer() as server:
    print(server.pid, server.folder, flush=True)
    time.sleep(60)
"""


def port_of(dsn: str) -> int:
    return int(dsn.rsplit(":", 1)[1].split("/", maxsplit=1)[0])


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie has ended, although init has not reaped it yet.
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_server_gets_additional_environment_variables() -> None:
    with DevServer(environment={"PGJOBQ_MARK": "here"}) as server, psycopg.connect(server.dsn) as conn:
        conn.execute("create temporary table said (word text)")
        conn.execute("copy said from program 'echo $PGJOBQ_MARK'")
        assert conn.execute("select word from said").fetchone() == ("here",)
        assert "PGJOBQ_MARK" not in os.environ


def test_temporary_server_leaves_nothing_behind() -> None:
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
        # The password is required.
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn.replace("postgres:", "postgres:not"))
    assert gone(pid)
    assert not folder.exists()
    server.stop()


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that the server can access when it runs as another user."""
    for path in (tmp_path, *list(tmp_path.parents)[:3]):
        if path.stat().st_uid == os.geteuid():
            path.chmod(path.stat().st_mode | 0o011)
    return tmp_path


def test_persistent_server_keeps_its_data_and_reports_its_dsn(open_folder: Path) -> None:
    folder = open_folder / "dev"
    with DevServer(folder) as server:
        dsn = server.dsn
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("create table kept (n int)")
        with pytest.raises(DevServerRunning, match="runs in") as running, DevServer(folder):
            pass
        assert running.value.dsn == dsn
        assert server.pid is not None  # the refused start did not stop it
    with DevServer(folder) as server:
        assert server.dsn == dsn  # the password and the port were kept
        with psycopg.connect(dsn) as conn:
            assert conn.execute("select count(*) from kept").fetchone() == (0,)


@pytest.fixture
def run_one(open_folder: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], int, Path]]]:
    """Return a function that starts a program with a temporary server.

    It returns the program, and the process id and the folder of the server.
    """
    programs: list[subprocess.Popen[str]] = []

    def run() -> tuple[subprocess.Popen[str], int, Path]:
        environment = {**os.environ, "TMPDIR": str(open_folder)}
        program = subprocess.Popen(
            [sys.executable, "-c", RUN_ONE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        programs.append(program)
        assert program.stdout is not None
        pid, folder = program.stdout.readline().split()
        return program, int(pid), Path(folder)

    yield run
    for program in programs:
        program.kill()
        program.communicate()


RunOne = Callable[[], tuple[subprocess.Popen[str], int, Path]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signalled_program_leaves_nothing_behind(run_one: RunOne, number: signal.Signals) -> None:
    program, pid, folder = run_one()
    assert folder.is_dir()
    program.send_signal(number)
    program.wait(15)
    assert gone(pid)
    assert not folder.exists()


def test_next_start_removes_the_folder_of_a_killed_program(run_one: RunOne) -> None:
    program, pid, folder = run_one()
    program.kill()
    program.wait()
    until(lambda: gone(pid))
    assert folder.is_dir()
    _, _, another = run_one()
    assert not folder.exists()
    assert another.is_dir()
    run_one()
    assert another.is_dir()  # a folder in use is kept


def test_interrupt_waits_while_tempfile_tests_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def interrupted(path: str, *rest: int, **named: int) -> int:
        descriptor = opened(path, *rest, **named)
        # tempfile has created its test file, but has not recorded it yet. Only this thread gets the signal.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        return descriptor

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._os.open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        temporary_root()
    assert list(tmp_path.iterdir()) == []


def test_fork_of_the_program_does_not_stop_the_server() -> None:
    program = """
import os, sys
from pgjobq.devserver import DevServer
with DevServer() as server:
    if child := os.fork():
        os.waitpid(child, 0)
        print(server.pid is not None, server.folder.is_dir())
"""  # the child leaves the with block and runs its exit handlers
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


def test_half_created_data_is_created_again(open_folder: Path) -> None:
    folder = open_folder / "dev"
    half = folder / "run" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")  # the first file that initdb writes
    with DevServer(folder) as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    assert not half.exists()


def test_kept_port_is_changed_if_it_is_taken(open_folder: Path) -> None:
    with DevServer(open_folder / "dev") as server:
        port = port_of(server.dsn)
    with DevServer(port=port), DevServer(open_folder / "dev") as server:
        assert port_of(server.dsn) != port


def test_version_matches_the_server() -> None:
    with DevServer() as server, psycopg.connect(server.dsn) as conn:
        row = conn.execute("select current_setting('server_version')").fetchone()
    assert row is not None
    assert row[0].split()[0] == server.version


def test_taken_port_is_reported() -> None:
    with DevServer() as server:
        port = port_of(server.dsn)
        with pytest.raises(DevServerError, match=f"did not start on port {port}"):
            DevServer(port=port).start()


def test_wrong_folder_of_programs_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGJOBQ_PG_BIN", str(tmp_path))
    with pytest.raises(DevServerError, match="PGJOBQ_PG_BIN: there is no initdb"):
        find_bindir()


def test_default_folder_depends_on_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "pgjobq" / "dev"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_folder() == Path.home() / ".local" / "share" / "pgjobq" / "dev"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_folder() == Path("/var/lib/pgjobq/dev")  # other users have no access to root's home


def test_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DevServerError, match=r"could not be started: .*file"):
        DevServer(tmp_path / "file" / "dev").start()


@pytest.fixture
def closed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that only root can access, such as root's home."""
    folder = tmp_path_factory.mktemp("closed")
    folder.chmod(0o700)
    return folder


@as_root
def test_folder_that_only_root_can_access_is_refused(closed_folder: Path) -> None:
    with pytest.raises(DevServerError, match=r"cannot access .*; use another folder"):
        DevServer(closed_folder / "dev").start()


@as_root
def test_temporary_folder_that_only_root_can_access_is_not_used(
    closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(closed_folder))
    with DevServer() as server:
        assert server.folder is not None
        assert not server.folder.is_relative_to(closed_folder)
    assert list(closed_folder.iterdir()) == []


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_programs_that_only_root_can_access_are_copied(
    closed_folder: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.delenv("PGJOBQ_PG_BIN", raising=False)
    bindir = find_bindir()
    package = bindir.parent.parent
    for part in (package, package.with_name(package.name + ".libs")):
        if part.is_dir():
            shutil.copytree(part, closed_folder / part.name, symlinks=True)
    for path in closed_folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & mode)  # 0o700 is what a strict umask gives
    monkeypatch.setenv("PGJOBQ_PG_BIN", str(closed_folder / bindir.relative_to(package.parent)))
    with DevServer(open_folder / "dev") as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    assert (open_folder / "dev" / package.name).is_dir()
