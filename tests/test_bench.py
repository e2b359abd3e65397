"""The bench runs from end to end, and what it writes has the form that its readers rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parent.parent / "loadtests" / "bench.py"
MEASURES = {"drain", "latency", "enqueue", "bulk", "idle", "memory", "kill"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    done = run("--tiny", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(out) in done.stdout
    report: dict[str, Any] = json.loads(out.read_text())
    return report


@pytest.mark.slow
def test_every_row_stands_beside_its_floor(report: dict[str, Any]) -> None:
    assert {row["measure"] for row in report["rows"]} == MEASURES
    for row in report["rows"]:
        assert row["floor"] > 0, row
        pairs = zip(row["figures"]["all"], row["floors"]["all"], strict=True)
        assert row["ratios"]["all"] == pytest.approx([figure / floor for figure, floor in pairs]), row
        if row["measure"] != "idle":  # an idle worker may well have said nothing in a second
            assert row["ratio"] > 0, row
        for values, median in (
            (row["figures"], row["figure"]),
            (row["floors"], row["floor"]),
            (row["ratios"], row["ratio"]),
        ):
            assert len(values["all"]) == row["repetitions"]
            assert values["min"] <= values["median"] == median <= values["max"]
        assert row["name"], row["floor_name"]
        assert row["unit"] in {"jobs/s", "ms", "statements/s", "MB", "s"}
        assert row["aim"].startswith((">= ", "<= "))


@pytest.mark.slow
def test_it_says_where_and_how_it_was_measured(report: dict[str, Any]) -> None:
    assert report["size"] == "tiny"
    assert report["seconds"] > 0
    assert report["machine"]["cores"] >= 1
    assert set(report["versions"]) >= {"postgresql", "python", "pgjobq", "psycopg"}
    settings = report["settings"]
    assert (settings["fsync"], settings["synchronous_commit"], settings["shared_buffers"]) == ("on", "on", "512MB")
    assert report["sizes"]["repeat"] == 1


def test_an_unknown_measure_is_refused() -> None:
    done = run("--only", "drain,sums")
    assert done.returncode == 2
    assert "sums is none of drain, latency" in done.stderr


@pytest.mark.slow
def test_storages_stand_beside_each_other(tmp_path: Path) -> None:
    out = tmp_path / "storages.json"
    command = [sys.executable, str(BENCH.with_name("bench_storages.py")), "--share", "0.01", "--repeat", "1"]
    command += ["--only", "postgresstorage,sqlite", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert {"python", "sqlalchemy", "psycopg"} <= set(report["versions"])
    assert [result["name"] for result in report["results"]] == ["PostgresStorage", "SQLAlchemyStorage, SQLite"]
    for result in report["results"]:
        assert result["missing"] == ""
        assert min(result["enqueued"], *result["drained"], *result["starts"]) > 0
        assert result["start_ms"]["p50"] <= result["start_ms"]["p99"] <= result["start_ms"]["max"]
        assert f"{result['name']}  " in done.stdout
