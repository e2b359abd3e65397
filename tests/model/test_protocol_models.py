"""Spin searches all states of the protocol models, *.pml in this folder. It must find an error if a step is left out.

See docs/discussions/model.md.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODELS = Path(__file__).parent
MEMORY = 2048  # megabytes
SECONDS = 240  # a search takes at most 10 seconds on a quiet machine


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False)
    # The report of pan has the outcome, which its exit status does not always show.
    assert done.returncode == 0 or command[0] == "./pan", done.stdout + done.stderr
    return done.stdout + done.stderr


def search(folder: Path, model: str, switches: str) -> str:
    """Search all states of a model and return the report."""
    # Spin runs the preprocessor as gcc.
    missing = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"there is no {' and no '.join(missing)}; run: apt-get install spin gcc libc6-dev")
    fails = model == "starts" or "FAILS" in switches  # a lost worker can end anywhere with jobs in hand
    _run("spin", "-a", *switches.split(), str(MODELS / f"{model}.pml"), cwd=folder)
    reduction = ["-DNOREDUCE"] if fails else []  # Spin's reduction does not support `provided`
    options = ["-O1", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY}", *reduction]
    _run("gcc", *options, "-o", "pan", "pan.c", cwd=folder)
    return _run("./pan", "-m20000", *(["-E"] if fails else []), cwd=folder)


def holds(folder: Path, model: str, switches: str) -> None:
    """Assert that the search was complete and found no error."""
    report = search(folder, model, switches)
    assert re.search(r"errors: 0\b", report), report
    for cut_off in ("Search not completed", "max search depth too small", "memory limit", "out of memory"):
        assert cut_off not in report, report


def breaks(folder: Path, model: str, switches: str) -> None:
    """Assert that the search found a broken invariant."""
    report = search(folder, model, switches)
    assert re.search(r"errors: [1-9]", report), report
    assert "assertion violated" in report, report
    assert "invalid array index" not in report, report


class TestDoorbell:
    @pytest.mark.parametrize("switches", ["-DROOM0=2 -DBUSY=1", "-DSECOND=1", "-DROUNDS=1"])
    def test_no_job_waits_while_a_worker_with_room_sleeps(self, tmp_path: Path, switches: str) -> None:
        holds(tmp_path, "doorbell", switches)

    @pytest.mark.parametrize("switches", ["-DFAILS=1"])
    def test_one_round_of_maintenance_finds_what_a_lost_worker_missed(self, tmp_path: Path, switches: str) -> None:
        holds(tmp_path, "doorbell", switches)

    @pytest.mark.parametrize(
        "switches",
        [
            "-DNO_V",  # the worker sleeps without waiting for the open transactions
            "-DNO_CLAIM_AFTER_V",  # the worker does not claim when one of them has ended
            "-DNO_CLAIM_AFTER_TELL",  # the worker does not claim after it has published its state
            "-DV_BEFORE_KEYS",  # the worker notes the open transactions before it takes its keys
            "-DNEW_ROW",  # the worker relies on its registration before that is committed
            "-DNO_CALL",  # a worker that stops polling does not call the sleeping workers
            "-DNO_HELP -DSECOND=1",  # a notified worker without room does not call for help
            "-DOLD_SNAPSHOT -DSECOND=1",  # a repeatable read transaction looks for workers in its snapshot
            "-DFAILS=1 -DNO_WAITING",  # maintenance does not look for waiting jobs
            "-DFAILS=1 -DNO_WATCH",  # an enqueue notifies no second worker to watch the first
            "-DFAILS=1 -DNO_RELY",  # a sleeping worker relies on a polling worker without polling itself
            "-DFAILS=1 -DTOLD_ONLY",  # only workers that were notified to watch run maintenance
        ],
    )
    def test_every_step_is_needed(self, tmp_path: Path, switches: str) -> None:
        breaks(tmp_path, "doorbell", switches)


class TestStarts:
    @pytest.mark.parametrize(
        "switches",
        [
            "",
            "-DKEEP=1",
            "-DCLAIMS=2 -DDIES=1",
            "-DCLAIMS=2 -DCUTS=0 -DJOBS=2",
            "-DCLAIMS=2 -DCUTS=0 -DJOBS=2 -DDIES=1 -DKEEP=1",
        ],
    )
    def test_a_start_belongs_to_one_worker_and_ends(self, tmp_path: Path, switches: str) -> None:
        holds(tmp_path, "starts", switches)

    @pytest.mark.parametrize(
        "switches",
        [
            "-DFENCE_BY_ATTEMPT",  # a settle is fenced by the attempt and the worker instead of the claim
            "-DNO_ROW_LOCK",  # a claim does not lock the worker's row
            "-DNO_KEY",  # a rescue does not take the key of the worker that it gives away
            "-DNO_SECOND_LOOK",  # a worker that reconnects does not check its row after it has taken its key
            "-DNO_COMPARISON",  # a worker does not compare the claims under its id with those that it knows
            "-DCOUNT_CLAIMS",  # the worker compares only their number, and still counts those of lost jobs
            "-DFORGET_EARLY -DCLAIMS=2 -DCUTS=0 -DJOBS=2 -DDIES=1",  # a claim is forgotten with its first job
        ],
    )
    def test_every_step_is_needed(self, tmp_path: Path, switches: str) -> None:
        breaks(tmp_path, "starts", switches)


class TestFloors:
    @pytest.mark.parametrize("switches", ["", "-DSESSIONS=2 -DPLACES=2"])
    def test_no_place_is_hidden(self, tmp_path: Path, switches: str) -> None:
        holds(tmp_path, "floors", switches)

    @pytest.mark.parametrize(
        "switches",
        [
            "-DNO_WAIT",  # floors do not wait for the open transactions
            "-DOPEN_BEFORE_SAFE",  # the open transactions are noted before the sequence is read
            "-DID_AFTER_NUMBER",  # a transaction takes its number before it has an id
            "-DTAKEN_IS_GONE",  # a place counts as gone before its claim has committed
            "-DIGNORE_LOWEST",  # a floor passes places that are visible
        ],
    )
    def test_every_step_is_needed(self, tmp_path: Path, switches: str) -> None:
        breaks(tmp_path, "floors", switches)
