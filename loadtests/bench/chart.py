"""The charts of a run, drawn by matplotlib as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

BINS = 60  # the most bins of a histogram
OURS, OTHER = "#2563eb", "#d97706"
STYLE: Any = {
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "pgjobq",  # makes the files reproducible
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e5e7eb",
}


def draw(series: dict[str, Any], stem: Path) -> list[Path]:
    """Write the charts to STEM-name.svg, and return the files."""
    makers: dict[str, Callable[[Axes, dict[str, Any]], None]] = {"latency": _latency, "snapshot": _snapshot}
    return [
        _written(make, series[name], stem.with_name(f"{stem.name}-{name}.svg"))
        for name, make in makers.items()
        if name in series
    ]


def _written(make: Callable[[Axes, dict[str, Any]], None], data: dict[str, Any], path: Path) -> Path:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axes = figure.subplots()
        make(axes, data)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,.12g}"))
        axes.set_ylim(bottom=0)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return path


def _latency(axes: Axes, data: dict[str, Any]) -> None:
    """Draw a histogram that contains nearly all values of both sides. Bins are merged until there are few enough."""
    sides = (data["floor"]["counts"], data["worker"]["counts"])
    most = min(len(sides[0]) - 1, ceil(1.1 * max(_bin_at(0.995, counts) for counts in sides)) + 1)
    joined = ceil(most / BINS)
    width = round(joined * data["bin_ms"], 3)
    for name, colour, side in (
        ("bare LISTEN and claim, no worker", OTHER, data["floor"]),
        ("pgjobq worker", OURS, data["worker"]),
    ):
        share = [100 * sum(side["counts"][bin_ : bin_ + joined]) / data["jobs"] for bin_ in range(0, most, joined)]
        label = f"{name}\np50 {side['p50']:.1f} ms, p99 {side['p99']:.1f} ms"
        if (later := 100 - sum(share)) >= 0.05:
            label += f"; {later:.1f} % later than shown"
        edges = [bin_ * width for bin_ in range(len(share) + 1)]
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.15)
        axes.stairs(share, edges, color=colour, linewidth=2, label=label)
    axes.set_xlim(0, ceil(most / joined) * width)
    axes.set_title("From the enqueue call to the handler's first line, lone jobs, 200 a second")
    axes.set_xlabel("milliseconds")
    axes.set_ylabel(f"% of {data['jobs']:,} jobs, by {width:g} ms")


def _bin_at(share: float, counts: Sequence[int]) -> int:
    """Return the bin of the value that this share of the values does not exceed."""
    left = share * sum(counts)
    for bin_, count in enumerate(counts):
        left -= count
        if left < 0:
            return bin_
    return len(counts) - 1


def _snapshot(axes: Axes, data: dict[str, Any]) -> None:
    """Draw the jobs a second over the number of finished jobs."""
    for name, colour, run in (
        ("one table, a partial index on the pending jobs", OTHER, data["single_table"]),
        ("pgjobq, one worker", OURS, data["worker"]),
    ):
        label = f"{name}\n{run['done']:,} jobs in {run['seconds']:.1f} s"
        axes.plot(*zip(*run["pace"], strict=True), color=colour, linewidth=2, label=label)
    axes.set_xlim(0, data["jobs"])
    axes.set_title("Jobs a second while another transaction holds an old snapshot open")
    axes.set_xlabel("jobs done since the snapshot was taken")
    axes.set_ylabel("jobs/s")
