"""The demo as a person runs it: to its end, interrupted at any moment, and killed."""

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

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A TMPDIR that the server's user gets through to, when that is another than this one."""
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
    assert "$" not in page  # every field was filled in
    assert f"{ORDERS} completed" in output
    assert f"invoices       {ORDERS} of {ORDERS}, in {invoices}" in output
    assert re.search(r"start latency  p50 \d+\.\d ms, p99 \d+\.\d ms", output)
    assert len(re.findall(r"(?m)^  pgjobq (?:dev|demo|worker)", output)) == 3
    assert demo.processes() == []
    assert demo.left() == ["out"]


def test_folder_of_its_own_stays_and_is_told(temporary: Path, demos: list[Demo]) -> None:
    demos.append(demo := Demo(temporary))
    status, output = demo.ended()
    assert status == 0, output
    (name,) = demo.left()
    assert f"in {temporary / name}\n" in output
    assert len(list((temporary / name).iterdir())) == ORDERS
    assert demo.processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", [0.3, 1.0, 2.5])
def test_interrupted_it_leaves_nothing(
    temporary: Path, demos: list[Demo], number: signal.Signals, moment: float
) -> None:
    demos.append(demo := Demo(temporary))
    time.sleep(moment)
    demo.process.send_signal(number)
    status, output = demo.ended()
    # 130; or by the signal itself, when it came before the demo had begun.
    assert status in (130, -number), output
    assert demo.processes() == []
    assert demo.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_second_signal_does_not_cut_the_cleaning_up_short(
    temporary: Path, demos: list[Demo], number: signal.Signals
) -> None:
    demos.append(demo := Demo(temporary))
    assert demo.process.stdout is not None
    said = ""
    while "2. A worker process is running" not in said:
        said = demo.process.stdout.readline()
        assert said, "it ended before its worker was up"
    for _ in range(10):
        demo.process.send_signal(number)
        time.sleep(0.02)
    status, output = demo.ended()
    # By the signal itself, when one comes while Python is shutting down.
    assert status in (130, -number), output
    assert "Traceback" not in output
    assert demo.processes() == []
    assert demo.left() == []


def test_kept_server_stays_until_it_is_interrupted(temporary: Path, demos: list[Demo]) -> None:
    demos.append(demo := Demo(temporary, "--keep", "--folder", str(temporary / "out")))
    assert demo.process.stdout is not None
    said = ""
    while "psql 'postgresql://" not in said:
        said = demo.process.stdout.readline()
        assert said, "it ended before it said where its server is"
    dsn = said.split("'")[1]
    command = [sys.executable, "-m", "pgjobq", "list", "--json", "--limit", "1", "--dsn", dsn]
    assert '"completed"' in subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    demo.process.send_signal(signal.SIGINT)
    assert demo.ended()[0] == 0  # that is how it ends; every order has its invoice
    assert demo.processes() == []
    assert demo.left() == ["out"]


@pytest.mark.parametrize("moment", ["while the server is made", "while orders come in"])
def test_killed_it_leaves_no_process(temporary: Path, demos: list[Demo], moment: str) -> None:
    demos.append(demo := Demo(temporary))
    if moment == "while orders come in":
        assert demo.process.stdout is not None
        said = ""
        while "3. Orders come in" not in said:
            said = demo.process.stdout.readline()
            assert said, "it ended before orders came in"
    else:
        while not list(temporary.glob("pgjobq-*/run")):
            assert time.monotonic() - demo.began < 15, "no server was begun"
            time.sleep(0.005)
    demo.process.kill()
    demo.process.wait()
    killed = time.monotonic()
    while left := demo.processes():
        assert time.monotonic() - killed < 10, left
        time.sleep(0.05)
