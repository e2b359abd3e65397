"""Schedules that a program declares beside its handlers, until a worker hands them to its storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pgjobq.definitions import Definition, place_of
from pgjobq.schedules import Schedule


@dataclass
class Declaration:
    """What @schedule declares. options: fields of Schedule. What they leave out comes from the handler."""

    function: Callable[..., Any]
    id: str | None
    options: dict[str, Any]
    definition: Definition = field(init=False)

    def __post_init__(self) -> None:
        self.definition = Definition(self.function)

    @property
    def key(self) -> tuple[str, str | None]:
        """What one module may declare only once."""
        return place_of(self.function), self.id

    def replaces(self, other: Declaration) -> bool:
        """Return whether this is the other one, because its module was executed again."""
        return self.function is not other.function and self.definition.is_same(other.definition)

    def resolved(self, job_type: str, defaults: dict[str, Any]) -> Schedule:
        """Return the schedule, with the id and the defaults of its handler. Raises InvalidSchedule."""
        made = Schedule(id=self.id or job_type, job_type=job_type, **(defaults | self.options))
        made.check()
        return made
