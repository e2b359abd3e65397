"""pgjobq measured beside its raw floors, in one run: `make bench`.

Every figure stands beside the same work done bare on the same server, moments apart. Quote the ratios: the figures are
the machine's as much as pgjobq's. The JSON in loadtests/results/ holds the machine, versions, settings, repetitions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_drain import drain, memory
from bench_enqueue import bulk, enqueue
from bench_ground import FULL, TINY, Bench, Row, Sizes, about, server
from bench_latency import idle, kill, latency
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
MEASURES: dict[str, Callable[[Bench], list[Row]]] = {
    "drain": drain,
    "latency": latency,
    "enqueue": enqueue,
    "bulk": bulk,
    "idle": idle,
    "memory": memory,
    "kill": kill,
}
SIZES = {"quick": Sizes(), "full": FULL, "tiny": TINY}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen measures, print the table, write the JSON; the exit status."""
    options = _options(arguments)
    names = options.only.split(",")
    sizes: Sizes = SIZES[options.size]
    console = Console(width=None if sys.stdout.isatty() else 140)
    started = time.monotonic()
    rows: list[Row] = []
    with server() as dsn:
        facts = about(dsn, sizes)
        for name in names:
            console.print(f"measuring {name} ...", style="dim", end=" ")
            begun = time.monotonic()
            rows += MEASURES[name](Bench(dsn, sizes))
            console.print(f"{time.monotonic() - begun:.0f} s", style="dim")
    facts |= {"size": options.size, "seconds": round(time.monotonic() - started, 1)}
    _print(rows, console)
    versions = facts["versions"]
    console.print(
        f"\nPostgreSQL {versions['postgresql']}, Python {versions['python']}, {facts['machine']['cores']} cores,"
        f" load before {facts['machine']['load_before']:.1f}; fsync and synchronous_commit on."
        f" {facts['seconds']:.0f} s in all. Medians of the repetitions; a ratio is the median of the repetitions' own."
    )
    out = options.out or RESULTS / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**facts, "rows": [row.to_dict() for row in rows]}, indent=2) + "\n")
    console.print(f"written to {out}", soft_wrap=True)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure pgjobq, each figure beside its raw floor.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick", help="about 3 minutes (default)")
    size.add_argument("--full", dest="size", action="store_const", const="full", help="larger and longer: 15 minutes")
    size.add_argument(
        "--tiny", dest="size", action="store_const", const="tiny", help="does it run: no figures to quote"
    )
    parser.set_defaults(size="quick")
    parser.add_argument("--only", default=",".join(MEASURES), help=f"some of {','.join(MEASURES)}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the JSON")
    options = parser.parse_args(arguments)
    if unknown := set(options.only.split(",")) - set(MEASURES):
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(MEASURES)}")
    return options


def _print(rows: Sequence[Row], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measure", overflow="fold")
    for name in ("figure", "min .. max"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("floor", justify="right", no_wrap=True)
    table.add_column("which is", overflow="fold")
    for name in ("ratio", "aim"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        spread = f"{_number(min(row.figures))} .. {_number(max(row.figures))}" if len(row.figures) > 1 else ""
        cells = (_number(row.figure), spread, row.unit, _number(row.floor), row.floor_name, f"{row.ratio:.2f}", row.aim)
        table.add_row(row.name, *cells)
    console.print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
