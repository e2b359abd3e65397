"""Tests of the servers that other tests use: they restart on the same port and leave no process or folder behind."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from services import MariaDB, Redis, SecantusDB, Server, Valkey, dynamodb

TESTS = Path(__file__).parents[1]
KINDS = pytest.mark.parametrize("kind", [MariaDB, Valkey, Redis, SecantusDB, dynamodb])


@KINDS
def test_server_restarts_on_its_port_and_leaves_nothing_behind(
    own_server: Callable[..., Server], kind: Callable[..., Server]
) -> None:
    server = own_server(kind, durable=True)
    url, folder, first = server.url, server.folder, server.pid
    server.kill()
    assert server.pid is None
    with pytest.raises(OSError, match="refused"):
        server.answers()
    server.start()
    assert server.url == url
    assert server.pid not in {None, first}
    assert server.answers()
    server.stop()
    assert not folder.exists()
    assert server.pid is None


@KINDS
def test_server_ends_with_a_process_that_is_killed(
    own_server: Callable[..., Server], kind: Callable[..., Server]
) -> None:
    own_server(kind).stop()  # skips the test if the server is not installed
    program = (
        f"import services, sys; s = services.{kind.__name__}().start(); print(s.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        watch = os.pidfd_open(server)
        parent.kill()
    try:
        assert _ended(watch, 10.0), f"{kind.__name__} outlives its parent"
    finally:
        os.close(watch)


def _ended(pidfd: int, seconds: float) -> bool:
    """Return whether the process ends within this time."""
    return bool(select.select([pidfd], [], [], seconds)[0])


@pytest.mark.parametrize(("environment", "processes", "code"), [({"CI": "true"}, "2", 1), ({}, "0", 0)])
def test_skip_fails_in_ci(tmp_path: Path, environment: dict[str, str], processes: str, code: int) -> None:
    """In CI, a skipped test fails the run, also with several processes, because it proves nothing."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\ndef test_skipped():\n    pytest.skip('absent; run: make services')\n\ndef test_other():\n    pass\n"
    )
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "conftest", "-n", processes]
    command += [f"--basetemp={tmp_path / 'of-tests'}"]
    done = subprocess.run(
        [*command, "test_it.py"],
        cwd=tmp_path, env=kept | environment | {"PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed, 1 skipped" in done.stdout
    assert done.returncode == code
