"""The demo as a user runs it: to the end, interrupted at several moments, and killed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.demos import ORDERS, Demo

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the test looks for processes in /proc")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A TMPDIR that the server can access when it runs as another user."""
    folder = Path(tempfile.mkdtemp(prefix="demo-of-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_every_order_gets_its_invoice(temporary: Path, demos: list[Demo]) -> None:
    invoices = temporary / "out" / "invoices"
    demos.append(demo := Demo(temporary, "--folder", str(invoices)))
    status, output = demo.ended()
    seconds = time.monotonic() - demo.began
    assert status == 0, output
    assert seconds < 15
    files = sorted(path.name for path in invoices.iterdir())
    assert len(files) == ORDERS
    assert all(re.fullmatch(r"invoice-\d+\.html", name) for name in files)
    page = (invoices / files[0]).read_text()
    assert "<h1>Invoice " in page
    assert "$" not in page  # every placeholder was filled in
    assert f"{ORDERS} completed" in output
    assert f"invoices       {ORDERS} of {ORDERS}, in {invoices}" in output
    assert re.search(r"start latency  p50 \d+\.\d ms, p99 \d+\.\d ms", output)
    assert len(re.findall(r"(?m)^  pgjobq (?:dev|demo|worker)", output)) == 3
    assert demo.processes() == []
    assert demo.left() == ["out"]


def test_folder_of_invoices_is_kept_and_printed(temporary: Path, demos: list[Demo]) -> None:
    demos.append(demo := Demo(temporary))
    status, output = demo.ended()
    assert status == 0, output
    (name,) = demo.left()
    assert f"in {temporary / name}\n" in output
    assert len(list((temporary / name).iterdir())) == ORDERS
    assert demo.processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", [0.3, 1.0, 2.5])
def test_interrupted_demo_leaves_nothing_behind(
    temporary: Path, demos: list[Demo], number: signal.Signals, moment: float
) -> None:
    demos.append(demo := Demo(temporary))
    time.sleep(moment)
    demo.process.send_signal(number)
    status, output = demo.ended()
    # The status is 130, or the signal if it came before the demo had installed its handlers.
    assert status in (130, -number), output
    assert demo.processes() == []
    assert demo.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_further_signals_do_not_interrupt_the_cleanup(
    temporary: Path, demos: list[Demo], number: signal.Signals
) -> None:
    demos.append(demo := Demo(temporary))
    assert demo.process.stdout is not None
    said = ""
    while "2. A worker process is running" not in said:
        said = demo.process.stdout.readline()
        assert said, "the demo ended before its worker was running"
    for _ in range(10):
        demo.process.send_signal(number)
        time.sleep(0.02)
    status, output = demo.ended()
    # The status is the signal if one arrives while Python shuts down.
    assert status in (130, -number), output
    assert "Traceback" not in output
    assert demo.processes() == []
    assert demo.left() == []


def test_kept_server_runs_until_it_is_interrupted(temporary: Path, demos: list[Demo]) -> None:
    demos.append(demo := Demo(temporary, "--keep", "--folder", str(temporary / "out")))
    assert demo.process.stdout is not None
    said = ""
    while "psql 'postgresql://" not in said:
        said = demo.process.stdout.readline()
        assert said, "the demo ended before it printed the address of its server"
    dsn = said.split("'")[1]
    command = [sys.executable, "-m", "pgjobq", "list", "--json", "--limit", "1", "--dsn", dsn]
    assert '"completed"' in subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    demo.process.send_signal(signal.SIGINT)
    assert demo.ended()[0] == 0  # with --keep an interruption is the normal end
    assert demo.processes() == []
    assert demo.left() == ["out"]


@pytest.mark.parametrize("moment", ["while the server is created", "while orders come in"])
def test_killed_demo_leaves_no_process_behind(temporary: Path, demos: list[Demo], moment: str) -> None:
    demos.append(demo := Demo(temporary))
    if moment == "while orders come in":
        assert demo.process.stdout is not None
        said = ""
        while "3. Orders come in" not in said:
            said = demo.process.stdout.readline()
            assert said, "the demo ended before orders came in"
    else:
        while not list(temporary.glob("pgjobq-*/run")):
            assert time.monotonic() - demo.began < 15, "the demo did not start a server"
            time.sleep(0.005)
    demo.process.kill()
    demo.process.wait()
    killed = time.monotonic()
    while left := demo.processes():
        assert time.monotonic() - killed < 10, left
        time.sleep(0.05)
