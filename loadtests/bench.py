"""pgjobq measured beside its raw floors, in one run: `make bench`.

Every figure stands next to the same work done bare, on the same server, minutes apart: quote the ratios. The
machine, the versions and each repetition are in the JSON that is written to loadtests/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, from anywhere
from loadtests import measures
from loadtests.rig import Bench, Row, server

RESULTS = Path(__file__).parent / "results"
SETTINGS = {"shared_buffers": "512MB", "shared_preload_libraries": "pg_stat_statements"}

MEASURES: dict[str, Callable[[Bench], list[Row]]] = {
    "drain": measures.drain,
    "latency": measures.latency,
    "enqueue": measures.enqueue,
    "bulk": measures.bulk,
    "idle": measures.idle,
    "memory": measures.memory,
    "kill": measures.kill,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen measures, print the table, write the JSON; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(MEASURES), help=f"some of {', '.join(MEASURES)}")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the full size; 0.01 is a smoke test")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each; the median counts")
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    if unknown := set(names) - set(MEASURES):
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(MEASURES)}")
    console = Console()
    rows: list[Row] = []
    with server(SETTINGS) as dsn:
        bench = Bench(dsn, options.scale, options.repeat)
        for name in names:
            console.print(f"measuring {name} ...", style="dim")
            rows += MEASURES[name](bench)
        about = _about(dsn, options)
    _print(rows, console)
    out = options.out or RESULTS / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**about, "rows": [row.to_dict() for row in rows]}, indent=2) + "\n")
    console.print(f"written to {out}", soft_wrap=True)
    return 0


def _about(dsn: str, options: argparse.Namespace) -> dict[str, Any]:
    with psycopg.connect(dsn) as conn:
        (version,) = conn.execute("select version()").fetchone() or ("",)
        names = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
        settings = {name: (conn.execute("select current_setting(%s)", [name]).fetchone() or ("",))[0] for name in names}
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "server": version,
        "settings": settings,
        "scale": options.scale,
        "repeat": options.repeat,
    }


def _print(rows: Sequence[Row], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("measure", "left"),
        ("figure", "right"),
        ("floor", "right"),
        ("ratio", "right"),
        ("unit", "left"),
    ):
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    table.add_column("spread", justify="right")
    for row in rows:
        floor = "" if row.floor is None else f"{statistics.median(row.floor):,.3g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        spread = f"{min(row.figure):,.3g} .. {max(row.figure):,.3g}"
        table.add_row(row.name, f"{statistics.median(row.figure):,.3g}", floor, ratio, row.unit, spread)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
