"""Writes a run's figures into the documentation: `figures.py RUN.json [LATER.json ...]`.

The measures of a later run replace those of the first run.

The page docs/discussions/figures.md explains how each figure is measured. Between its marks `<!-- figures: NAME -->`
and `<!-- end -->` this program writes the rows of the measure NAME. For the name `run`, it writes the machine and
settings. It stores the JSON of the run and its charts in docs/img.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.table import aim, closing, number

DOCS = Path(__file__).parents[2] / "docs"
PAGE, IMAGES = DOCS / "discussions" / "figures.md", DOCS / "img"
RECORD = IMAGES / "figures.json"
PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
ABOUT = ("when", "machine", "versions", "settings", "size", "seconds")
HEAD = "| | figure | floor | ratio | aim | |\n|---|---|---|---|---|---|\n"
VERDICT = {None: "", True: "reached", False: "missed"}


def main(*runs: str) -> int:
    """Merge the runs, draw the charts, and fill the page."""
    report = together([json.loads(Path(run).read_text()) for run in runs])
    RECORD.write_text(json.dumps(report, indent=1) + "\n")
    from bench.chart import draw

    draw(report["series"], IMAGES / "figures")
    PAGE.write_text(filled(PAGE.read_text(), report))
    print(f"written to {PAGE}")
    return 0


def together(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge reports, with the latest rows and series of each measure. "later" lists the measures of later runs."""
    first, *more = reports
    whole = {**first, "later": list(first.get("later", []))}
    for report in more:
        measures = set(report["measures"])
        whole["rows"] = [row for row in whole["rows"] if row["measure"] not in measures] + report["rows"]
        whole["measures"] = whole["measures"] | report["measures"]
        whole["series"] = whole["series"] | report["series"]
        whole["later"].append({key: report[key] for key in ABOUT} | {"measures": sorted(measures)})
    return whole


def filled(page: str, report: dict[str, Any]) -> str:
    """Return the page, with the figures of this run between its marks."""
    return PLACE.sub(lambda place: f"{place[1]}\n{_part(place[2], report)}\n{place[3]}", page)


def _part(name: str, report: dict[str, Any]) -> str:
    if name == "run":
        later = (
            f"\nThese measures were repeated later: {', '.join(run['measures'])}.\n{closing(run)}\n"
            for run in report.get("later", [])
        )
        return closing(report).strip() + "\n" + "".join(later)
    rows = [row for row in report["rows"] if row["measure"] == name]
    if not rows:
        return "Not part of this run.\n"
    return HEAD + "".join(_line(row) for row in rows)


def _line(row: dict[str, Any]) -> str:
    if "missing" in row:
        return f"| {row['name']} | {row['missing']} | | | | |\n"
    figure = f"{_spread(row['figures'])} {row['unit']}"
    floor = "" if row["floor"] is None else f"{_spread(row['floors'])}, {row['floor_name']}"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    cells = (row["name"], figure, floor, ratio, aim(row["aim"], row["aim_on"]), VERDICT[row["reached"]])
    return f"| {' | '.join(cells)} |\n"


def _spread(values: dict[str, Any]) -> str:
    middle = number(values["median"])
    return middle if len(values["all"]) == 1 else f"{middle} ({number(values['min'])} to {number(values['max'])})"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
