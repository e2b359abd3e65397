"""Tests that the bench runs, and that its output has the documented form."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

BENCH = Path(__file__).parents[2] / "loadtests" / "bench"
sys.path.append(str(BENCH.parent))

from bench import figures  # noqa: E402  # after sys.path was changed

ALL = ["drain", "keep", "latency", "load", "future", "finished", "snapshot", "plans", "lanes", "enqueue", "slow_disk"]
ALL += ["bulk", "idle", "herd", "memory", "start", "kill", "functions"]
UNITS = {"jobs/s", "ms", "us/job", "buffers/job", "WAL bytes/job", "statements/s", "claims", "MB", "s"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every measure once at its smallest size, and return the folder of the results."""
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    done = run("--tiny", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(out) in done.stdout
    return out


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(out.read_text())
    return report


@pytest.fixture(scope="module")
def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["rows"] if "missing" not in row]


@pytest.mark.slow
def test_every_measure_has_its_rows(report: dict[str, Any]) -> None:
    assert list(dict.fromkeys(row["measure"] for row in report["rows"])) == ALL
    assert list(report["measures"]) == ALL
    missing = {row["measure"]: row for row in report["rows"] if "missing" in row}
    assert not any(row["failed"] for row in missing.values())
    if shutil.which("cc") is not None:
        assert "slow_disk" not in missing
    assert set(missing) <= {"keep", "slow_disk"}


@pytest.mark.slow
def test_ratio_is_computed_from_the_measured_values(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert min(row["figures"]["all"]) >= 0, row
        if row["ratio"] is None:
            # Idle workers may send nothing within a second, so the floor may be 0.
            assert row["measure"] == "idle"
            assert min(row["floors"]["all"]) == 0
            continue
        pairs = zip(row["figures"]["all"], row["floors"]["all"], strict=True)
        assert row["ratios"]["all"] == pytest.approx([figure / floor for figure, floor in pairs]), row
        assert row["floor"] > 0, row
        assert row["floor_name"], row


@pytest.mark.slow
def test_row_has_its_spread_and_whether_its_aim_is_reached(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for values, median in (("figures", "figure"), ("floors", "floor"), ("ratios", "ratio")):
            if row[values] is not None:
                assert len(row[values]["all"]) == row["repetitions"], row
                assert row[values]["min"] <= row[values]["median"] == row[median] <= row[values]["max"], row
        assert row["name"]
        assert row["unit"] in UNITS
        assert row["aim_on"] in {"figure", "ratio"}
        if not row["aim"] or row[row["aim_on"]] is None:
            assert row["reached"] is None
        else:
            sign, wanted = row["aim"].split()
            more = row[row["aim_on"]] - float(wanted)
            assert row["reached"] == (more >= 0 if sign == ">=" else more <= 0), row


@pytest.mark.slow
def test_aims_are_those_of_the_documentation(rows: list[dict[str, Any]]) -> None:
    aims = {(row["measure"], row["aim_on"], row["aim"]) for row in rows if row["aim"]}
    assert aims >= {
        ("drain", "ratio", ">= 0.7"),
        ("drain", "ratio", ">= 0.6"),
        ("drain", "ratio", ">= 1.0"),
        ("latency", "ratio", "<= 1.5"),
        ("load", "figure", "<= 20"),
        ("load", "ratio", "<= 1.5"),
        ("future", "ratio", ">= 0.9"),
        ("finished", "ratio", ">= 0.9"),
        ("snapshot", "ratio", ">= 0.9"),
        ("plans", "ratio", "<= 1.5"),
        ("lanes", "ratio", "<= 2"),
        ("enqueue", "ratio", ">= 0.8"),
        ("bulk", "ratio", ">= 0.5"),
        ("idle", "figure", "<= 2"),
        ("herd", "figure", "<= 3"),
        ("memory", "figure", "<= 120"),
        ("memory", "ratio", "<= 1.1"),
        ("start", "figure", "<= 0.5"),
        ("start", "figure", "<= 50"),
    }


@pytest.mark.slow
def test_report_describes_the_machine_and_the_settings(report: dict[str, Any]) -> None:
    assert report["size"] == "tiny"
    assert report["seconds"] >= max(measure["seconds"] for measure in report["measures"].values()) > 0
    assert report["machine"]["cores"] >= 1
    assert set(report["versions"]) >= {"postgresql", "python", "pgjobq", "psycopg", "commit"}
    settings = report["settings"]
    assert (settings["fsync"], settings["synchronous_commit"], settings["shared_buffers"]) == ("on", "on", "512MB")
    assert report["sizes"]["repeat"] == 1


@pytest.mark.slow
def test_the_charts_are_drawn(out: Path, report: dict[str, Any]) -> None:
    for name in ("latency", "snapshot"):
        path = out.with_name(f"bench-{name}.svg")
        assert ET.parse(path).getroot().tag.endswith("svg")  # noqa: S314  # our own
    histogram = report["series"]["latency"]
    assert sum(histogram["worker"]["counts"]) == sum(histogram["floor"]["counts"]) == histogram["jobs"]
    for run in (report["series"]["snapshot"]["worker"], report["series"]["snapshot"]["single_table"]):
        assert all(rate > 0 for _, rate in run["pace"])


@pytest.mark.slow
def test_a_page_is_filled_with_the_rows_of_a_run(report: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    empty = "before\n<!-- figures: bulk -->\nold\n<!-- end -->\n<!-- figures: sums -->\n<!-- end -->\nafter\n"
    page = figures.filled(empty, report)
    assert figures.filled(page, report) == page
    assert page.startswith("before\n")
    assert page.endswith("Not part of this run.\n\n<!-- end -->\nafter\n")
    assert "old" not in page
    for row in rows:
        shown = f"| {row['name']} | " in page and f" | {row['ratio'] or 0:.2f} | " in page
        assert shown == (row["measure"] == "bulk")


@pytest.mark.slow
def test_measures_of_a_later_run_replace_those_of_the_first(report: dict[str, Any]) -> None:
    bulk = [{**row, "name": f"again {row['name']}"} for row in report["rows"] if row["measure"] == "bulk"]
    later = {**report, "measures": {"bulk": {"seconds": 1.0}}, "rows": bulk, "series": {}, "seconds": 77.0}
    whole = figures.together([report, later])
    assert [row for row in whole["rows"] if row["measure"] == "bulk"] == bulk
    assert [row for row in whole["rows"] if row["measure"] != "bulk"] == [
        row for row in report["rows"] if row["measure"] != "bulk"
    ]
    assert whole["series"] == report["series"]
    assert set(whole["measures"]) == set(report["measures"])
    page = figures.filled("<!-- figures: run -->\n<!-- end -->\n", whole)
    assert "These measures were repeated later: bulk.\n" in page
    assert "tiny run, 77 s." in page
    assert figures.together([whole, later])["later"] == [whole["later"][0]] * 2


def test_figures_in_the_documentation_are_from_the_stored_run() -> None:
    report = json.loads(figures.RECORD.read_text())
    page = figures.PAGE.read_text()
    assert figures.filled(page, report) == page
    assert {name for _, name, _ in figures.PLACE.findall(page)} == {"run", *ALL}


def test_the_measures_are_listed() -> None:
    done = run("--list")
    assert done.returncode == 0
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [name for name, _ in listed] == ALL
    assert all(text.endswith((".", ";", ":")) for _, text in listed)


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, str(BENCH), "--tiny", "--only", "bulk,kill", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        told = ""
        while "measuring kill" not in told:
            letter = bench.stdout.read(1)
            assert letter, told
            told += letter
        bench.send_signal(signal.SIGINT)
        assert bench.wait(60) == 1
    report = json.loads(out.read_text())
    assert [row["measure"] for row in report["rows"]][-1] == "kill"
    assert report["rows"][-1] == {"measure": "kill", "name": "kill", "missing": "interrupted", "failed": True}
    assert list(report["measures"]) == ["bulk"]


def test_an_unknown_measure_is_refused() -> None:
    done = run("--only", "drain,sums")
    assert done.returncode == 2
    assert "sums is not a measure; use drain, keep" in done.stderr


@pytest.mark.slow
def test_bench_of_storages(tmp_path: Path) -> None:
    out = tmp_path / "storages.json"
    command = [sys.executable, str(BENCH / "storages.py"), "--share", "0.01", "--repeat", "1"]
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
