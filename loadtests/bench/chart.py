"""The charts of a run, written by hand as SVG; as PNG too where resvg_py is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 36, 100, 46  # of the plot
BINS = 60  # of a histogram, at most
OURS, OTHER, INK, PALE = "#2563eb", "#d97706", "#1f2937", "#e5e7eb"
FONT = "font-family='Inter, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif'"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line of a chart. note: what its name does not say. filled: down to the axis."""

    name: str
    note: str
    colour: str
    points: Points
    filled: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn; x and y from 0."""

    title: str
    x_name: str
    y_name: str
    curves: Sequence[Curve]
    x_most: float


def draw(series: dict[str, Any], stem: Path) -> list[Path]:
    """Write the charts of what was measured to STEM-name.svg, and .png; the files' names."""
    makers: dict[str, Callable[[dict[str, Any]], Chart]] = {"latency": _latency, "snapshot": _snapshot}
    written = []
    for name, make in makers.items():
        if name in series:
            svg = _svg(make(series[name]))
            path = stem.with_name(f"{stem.name}-{name}.svg")
            path.write_text(svg)
            written += [path, *_png(svg, path.with_suffix(".png"))]
    return written


def _png(svg: str, path: Path) -> list[Path]:
    if importlib.util.find_spec("resvg_py") is None:
        return []
    import resvg_py

    path.write_bytes(bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=2)))
    return [path]


def _latency(data: dict[str, Any]) -> Chart:
    """A histogram, up to where nearly all of both sides lie; the bins are joined until there are few enough."""
    sides = (data["floor"]["counts"], data["worker"]["counts"])
    most = min(len(sides[0]) - 1, ceil(1.1 * max(_bin_at(0.995, counts) for counts in sides)) + 1)
    joined = ceil(most / BINS)
    width = round(joined * data["bin_ms"], 3)

    def curve(name: str, colour: str, side: dict[str, Any]) -> Curve:
        share = [100 * sum(side["counts"][bin_ : bin_ + joined]) / data["jobs"] for bin_ in range(0, most, joined)]
        steps = [(edge * width, height) for bin_, height in enumerate(share) for edge in (bin_, bin_ + 1)]
        note = f"p50 {side['p50']:.1f} ms, p99 {side['p99']:.1f} ms"
        if (later := 100 - sum(share)) >= 0.05:
            note += f"; {later:.1f} % later than shown"
        return Curve(name=name, note=note, colour=colour, points=steps, filled=True)

    return Chart(
        title="From the enqueue call to the handler's first line, lone jobs, 200 a second",
        x_name="milliseconds",
        y_name=f"% of {data['jobs']:,} jobs, by {width:g} ms",
        curves=[
            curve("bare LISTEN and claim, no worker", OTHER, data["floor"]),
            curve("pgjobq worker", OURS, data["worker"]),
        ],
        x_most=ceil(most / joined) * width,
    )


def _bin_at(share: float, counts: Sequence[int]) -> int:
    """The bin of the value that so large a share does not exceed."""
    left = share * sum(counts)
    for bin_, count in enumerate(counts):
        left -= count
        if left < 0:
            return bin_
    return len(counts) - 1


def _snapshot(data: dict[str, Any]) -> Chart:
    jobs = data["jobs"]

    def curve(name: str, colour: str, run: dict[str, Any]) -> Curve:
        note = f"{run['done']:,} jobs in {run['seconds']:.1f} s"
        return Curve(name=name, note=note, colour=colour, points=run["pace"])

    return Chart(
        title="Jobs a second while another transaction holds an old snapshot open",
        x_name="jobs done since the snapshot was taken",
        y_name="jobs/s",
        curves=[
            curve("naive single-table queue", OTHER, data["naive"]),
            curve("pgjobq, one worker", OURS, data["worker"]),
        ],
        x_most=jobs,
    )


def _svg(chart: Chart) -> str:
    y_step = _step(max(y for curve in chart.curves for _, y in curve.points) or 1)
    y_most = y_step * ceil(max(y for curve in chart.curves for _, y in curve.points) / y_step)
    x_step = _step(chart.x_most, 8)
    across, down = (WIDTH - LEFT - RIGHT) / chart.x_most, (HEIGHT - TOP - BOTTOM) / (y_most or 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x * across, HEIGHT - BOTTOM - y * down

    size = f"viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} role='img' {FONT} font-size='12' fill='{INK}'>",
        f"<title>{escape(chart.title)}</title>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' rx='6' fill='white'/>",
        _text(16, 24, chart.title, "font-size='15' font-weight='600'"),
    ]
    for number in range(round(y_most / y_step) + 1):
        x, y = place(0, number * y_step)
        parts.append(f"<path d='M{x:.1f} {y:.1f}H{WIDTH - RIGHT}' stroke='{PALE}'/>")
        parts.append(_text(x - 8, y + 4, f"{number * y_step:,.12g}", "text-anchor='end'"))
    for number in range(floor(chart.x_most / x_step) + 1):
        x, y = place(number * x_step, 0)
        parts.append(_text(x, y + 18, f"{number * x_step:,.12g}", "text-anchor='middle'"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 10, chart.x_name, "text-anchor='end' fill='#6b7280'"))
    parts.append(_text(16, TOP - 12, chart.y_name, "fill='#6b7280'"))
    for number, curve in enumerate(chart.curves):
        parts += _curve(curve, [place(x, y) for x, y in curve.points])
        parts += _legend(curve, number)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _curve(curve: Curve, points: Points) -> list[str]:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in _thinned(points))
    drawn = [f"<path d='{path}' fill='none' stroke='{curve.colour}' stroke-width='2' stroke-linejoin='round'/>"]
    if curve.filled:
        base = HEIGHT - BOTTOM
        closed = f"{path}L{points[-1][0]:.1f} {base}L{points[0][0]:.1f} {base}Z"
        drawn.insert(0, f"<path d='{closed}' fill='{curve.colour}' fill-opacity='0.15'/>")
    return drawn


def _thinned(points: Points) -> Points:
    """Without points that repeat the one before."""
    return [points[0], *(point for before, point in pairwise(points) if point != before)]


def _legend(curve: Curve, number: int) -> list[str]:
    x, y = 17 + number * 340, 50
    return [
        f"<rect x='{x}' y='{y - 9}' width='12' height='12' rx='2' fill='{curve.colour}'/>",
        _text(x + 18, y + 2, curve.name, "font-weight='600'"),
        _text(x + 18, y + 17, curve.note, "fill='#6b7280'"),
    ]


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{escape(text)}</text>"


def _step(most: float, ticks: int = 5) -> float:
    """A round distance, 1, 2 or 5 times a power of ten, that gives about that many ticks."""
    rough = most / ticks
    power = 10.0 ** floor(log10(rough))
    return float(min((factor * power for factor in (1, 2, 5, 10) if factor * power >= rough), default=rough))
