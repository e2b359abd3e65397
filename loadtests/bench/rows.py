"""A line of the table: the repetitions of a figure beside those of its floor."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Repetitions of a figure and, index for index, of its floor, taken moments apart.

    The floor is the same work done bare, or the same without what the measure adds. It is empty where there is
    neither. aim: such as ">= 0.7", of the ratio or of the figure itself; empty: none.
    """

    measure: str
    name: str
    unit: str
    figures: Sequence[float]
    floors: Sequence[float] = ()
    floor_name: str = ""
    aim: str = ""
    aim_on: Literal["ratio", "figure"] = "ratio"
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def figure(self) -> float:
        """The median figure."""
        return statistics.median(self.figures)

    @property
    def floor(self) -> float | None:
        """The median floor."""
        return statistics.median(self.floors) if self.floors else None

    @property
    def ratios(self) -> list[float]:
        """Each repetition's own, for the machine's speed drifts. None at all when a floor is 0."""
        if not self.floors or min(self.floors) == 0:
            return []
        return [figure / floor for figure, floor in zip(self.figures, self.floors, strict=True)]

    @property
    def ratio(self) -> float | None:
        """Their median."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def reached(self) -> bool | None:
        """Whether the aim is; None without one, or without what it is compared with."""
        value = self.figure if self.aim_on == "figure" else self.ratio
        if not self.aim or value is None:
            return None
        sign, wanted = self.aim.split()
        return bool(COMPARE[sign](value, float(wanted)))

    def to_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "measure": self.measure,
            "name": self.name,
            "unit": self.unit,
            "figure": self.figure,
            "floor": self.floor,
            "ratio": self.ratio,
            "aim": self.aim,
            "aim_on": self.aim_on,
            "reached": self.reached,
            "repetitions": len(self.figures),
            "figures": _spread(self.figures),
            "floors": _spread(self.floors),
            "ratios": _spread(self.ratios),
            "floor_name": self.floor_name,
            "notes": self.notes,
        }


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A line that was not measured, and why. failed: it should have been."""

    measure: str
    name: str
    reason: str
    failed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {"measure": self.measure, "name": self.name, "missing": self.reason, "failed": self.failed}


Line = Row | Missing


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "all": list(values)}


def at(share: float, values: Sequence[float]) -> float:
    """The value that so large a share of them does not exceed: 0.99 is p99."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
