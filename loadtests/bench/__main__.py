"""Measure pgjobq and its raw floors in one run: `make bench`.

Every figure is compared with the same work without pgjobq, on the same server and moments apart. Quote the ratios,
because the figures depend on the machine as much as on pgjobq. The JSON file in loadtests/results/ contains the
machine, versions, settings, and all repetitions with their spread. The charts are in the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console

from bench.about import about
from bench.backlog import finished, future
from bench.bulk import bulk
from bench.chart import draw
from bench.drain import drain, keep_none
from bench.enqueue import enqueue, slow_disk
from bench.functions import functions
from bench.harness import Bench, server
from bench.idle import herd, idle
from bench.latency import kill, latency
from bench.load import load
from bench.memory import memory
from bench.plans import lanes, plans
from bench.rows import Line, Missing
from bench.sizes import SIZES
from bench.snapshot import snapshot
from bench.start import start
from bench.table import closing, table

RESULTS = Path(__file__).parents[1] / "results"
MEASURES: dict[str, Callable[[Bench], list[Line]]] = {
    "drain": drain,
    "keep": keep_none,
    "latency": latency,
    "load": load,
    "future": future,
    "finished": finished,
    "snapshot": snapshot,
    "plans": plans,
    "lanes": lanes,
    "enqueue": enqueue,
    "slow_disk": slow_disk,
    "bulk": bulk,
    "idle": idle,
    "herd": herd,
    "memory": memory,
    "start": start,
    "kill": kill,
    "functions": functions,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen measures, print the table, and write JSON and charts. Return 1 if a measure failed."""
    options = _options(arguments)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # without cached bytecode, each process would compile every module
    console = Console(width=None if sys.stdout.isatty() else 150)
    if options.list:
        for name, measure in MEASURES.items():
            console.print(f"{name:10} {(measure.__doc__ or '').splitlines()[0]}", highlight=False, soft_wrap=True)
        return 0
    started = time.monotonic()
    with server() as dsn:
        bench = Bench(dsn, SIZES[options.size], {})
        report = about(dsn) | {"size": options.size, "sizes": vars(bench.sizes)}
        lines, measured = _run(options.only.split(","), bench, console)
    report |= {"seconds": round(time.monotonic() - started, 1), "measures": measured}
    report |= {"rows": [line.to_dict() for line in lines], "series": bench.series}
    console.print(table(lines))
    console.print(closing(report), highlight=False)
    _write(report, options.out or RESULTS / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json", console)
    return int(any(isinstance(line, Missing) and line.failed for line in lines))


def _run(names: Sequence[str], bench: Bench, console: Console) -> tuple[list[Line], dict[str, dict[str, float]]]:
    """Return the results of each measure, its seconds, and the load before it. An interrupt ends the run early."""
    lines: list[Line] = []
    measured: dict[str, dict[str, float]] = {}
    name = names[0]
    try:
        for name in names:
            begun, busy = time.monotonic(), os.getloadavg()[0]
            console.print(f"measuring {name} ...", style="dim", end=" ")
            lines += _measured(name, bench)
            measured[name] = {"seconds": round(time.monotonic() - begun, 1), "load_before": busy}
            console.print(f"{measured[name]['seconds']:.0f} s", style="dim")
    except KeyboardInterrupt:
        console.print("interrupted", style="bold red")
        lines.append(Missing(measure=name, name=name, reason="interrupted", failed=True))
    return lines, measured


def _measured(name: str, bench: Bench) -> list[Line]:
    """Run a measure. If it fails, return a line that says so, so that the others can run."""
    try:
        return MEASURES[name](bench)
    except Exception as error:
        traceback.print_exc()
        return [
            Missing(
                measure=name, name=name, reason=f"failed: {(str(error) or repr(error)).splitlines()[0]}", failed=True
            )
        ]


def _write(report: dict[str, Any], out: Path, console: Console) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    for path in (out, *draw(report["series"], out.with_suffix(""))):
        console.print(f"written to {path}", soft_wrap=True, highlight=False)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure pgjobq, and compare each figure with its raw floor.")
    size = parser.add_mutually_exclusive_group()
    for name, text in (
        ("quick", "under 5 minutes (default)"),
        ("full", "every measure at its full size; takes most of an hour"),
        ("tiny", "test whether the bench runs; its figures mean nothing"),
    ):
        size.add_argument(f"--{name}", dest="size", action="store_const", const=name, help=text)
    parser.set_defaults(size="quick")
    parser.add_argument("--only", metavar="NAME,NAME", help="measures to run (default: all; quick: all but functions)")
    parser.add_argument("--list", action="store_true", help="list the measures")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON file; the charts go to the same folder")
    options = parser.parse_args(arguments)
    if options.only is None:
        options.only = ",".join(name for name in MEASURES if options.size != "quick" or name != "functions")
    if unknown := set(options.only.split(",")) - set(MEASURES):
        parser.error(f"--only: {', '.join(sorted(unknown))} is not a measure; use {', '.join(MEASURES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
