"""The rows of the table: each compares the repetitions of a figure with those of its floor."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, kw_only=True)
class Row:
    """The repetitions of a figure and of its floor. The two values of a pair were measured moments apart.

    The floor is the same work without pgjobq, or without the condition that the measure tests. It is empty if there is
    neither. aim: the goal for the ratio or the figure, such as ">= 0.7"; empty if there is none.
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
        """Return the median of the figures."""
        return statistics.median(self.figures)

    @property
    def floor(self) -> float | None:
        """Return the median of the floors, or None without floors."""
        return statistics.median(self.floors) if self.floors else None

    @property
    def ratios(self) -> list[float]:
        """Return the ratio of each pair, because the machine's speed drifts. The list is empty if a floor is 0."""
        if not self.floors or min(self.floors) == 0:
            return []
        return [figure / floor for figure, floor in zip(self.figures, self.floors, strict=True)]

    @property
    def ratio(self) -> float | None:
        """Return the median of the ratios."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def reached(self) -> bool | None:
        """Return whether the aim is reached, or None without an aim or a value to compare with it."""
        value = self.figure if self.aim_on == "figure" else self.ratio
        if not self.aim or value is None:
            return None
        sign, wanted = self.aim.split()
        return bool(COMPARE[sign](value, float(wanted)))

    def to_dict(self) -> dict[str, Any]:
        """Return the row for the JSON file."""
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
    """A measure without a result, and the reason. failed: whether this is an error."""

    measure: str
    name: str
    reason: str
    failed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the row for the JSON file."""
        return {"measure": self.measure, "name": self.name, "missing": self.reason, "failed": self.failed}


Line = Row | Missing


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "all": list(values)}


def at(share: float, values: Sequence[float]) -> float:
    """Return the value that this share of the values does not exceed. A share of 0.99 gives p99."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
