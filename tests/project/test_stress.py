"""Runs the stress test of the doorbell for half a minute. `make stress` runs it for longer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).parents[2] / "loadtests" / "stress"


@pytest.mark.slow
def test_no_job_waits_under_random_transactions_and_kills() -> None:
    command = [sys.executable, str(STRESS / "doorbell.py"), "--seconds", "30"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.search(r"(\d+) rounds, (\d+) jobs", ran.stdout)
    assert found, ran.stdout
    assert int(found[2]) > 50
