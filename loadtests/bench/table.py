"""Prints the table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from bench.rows import Line, Missing, Row


def table(lines: Sequence[Line]) -> Table:
    """Print a line for each row, under the name of its measure."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("measure", overflow="fold")
    for name in ("n", "figure", "min .. max"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("unit", no_wrap=True)
    shown.add_column("floor", justify="right", no_wrap=True)
    shown.add_column("which is", overflow="fold")
    for name in ("ratio", "aim"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    measure = ""
    for line in lines:
        if line.measure != measure:
            measure = line.measure
            shown.add_row(Text(measure, style="bold cyan"))
        if isinstance(line, Missing):
            shown.add_row(Text(f"{line.name}: {line.reason}", style="yellow"))
        else:
            shown.add_row(*_cells(line))
    return shown


def _cells(row: Row) -> list[str | Text]:
    spread = f"{number(min(row.figures))} .. {number(max(row.figures))}" if len(row.figures) > 1 else ""
    floor, ratio = row.floor, row.ratio
    verdict = {None: Text(""), True: Text("yes", style="green"), False: Text("no", style="bold red")}[row.reached]
    return [
        row.name,
        str(len(row.figures)),
        number(row.figure),
        spread,
        row.unit,
        "" if floor is None else number(floor),
        row.floor_name,
        "" if ratio is None else f"{ratio:.2f}",
        aim(row.aim, row.aim_on),
        verdict,
    ]


def aim(aim: str, aim_on: str) -> str:
    """Return the aim, and whether it applies to the figure or the ratio."""
    return f"{aim_on} {aim}" if aim else ""


def number(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def closing(report: dict[str, Any]) -> str:
    """Return three lines that describe the machine, the versions and the run."""
    machine, versions, settings = report["machine"], report["versions"], report["settings"]
    return (
        f"\n{machine['cores']} cores of {machine['processor'] or 'an unnamed processor'}, {machine['memory']},"
        f" {machine['system']}, load average {machine['load_before']:.1f} before the run.\n"
        f"PostgreSQL {versions['postgresql']}, Python {versions['python']}, pgjobq {versions['pgjobq']}"
        f" {versions['commit']}, psycopg {versions['psycopg']} ({versions['psycopg_impl']});"
        f" fsync {settings['fsync']} ({settings['wal_sync_method']}),"
        f" synchronous_commit {settings['synchronous_commit']},"
        f" shared_buffers {settings['shared_buffers']}, max_wal_size {settings['max_wal_size']}.\n"
        f"{report['size']} run, {report['seconds']:.0f} s. Figures and floors are medians of n repetitions."
        " A ratio is the median of the ratios of the repetitions. The JSON file has them all."
    )
