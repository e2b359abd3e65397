"""Schedules that a program declares beside its handlers, until a worker hands them to its storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pgjobq.definitions import Definition, place_of
from pgjobq.errors import ConfigurationError, InvalidJob, UnknownJobType
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


class Declarations:
    """The schedules that the handlers of one registry declare."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str | None], Declaration] = {}

    def add(self, declaration: Declaration) -> None:
        """Add one. Raises ConfigurationError for a second one of a function without another id."""
        there = self._all.get(declaration.key)
        if there is not None and not declaration.replaces(there):
            place = place_of(declaration.function)
            raise ConfigurationError(f"@schedule: {place} has another schedule of this id; give each its own id=...")
        self._all[declaration.key] = declaration

    def resolved(self, handler_of: Callable[[Callable[..., Any]], Any]) -> dict[str, Schedule]:
        """Return the schedules by id. handler_of: returns the Handler of a function, or raises UnknownJobType."""
        found: dict[str, Schedule] = {}
        for declaration in self._all.values():
            place = place_of(declaration.function)
            try:
                handler = handler_of(declaration.function)
                defaults = {name: getattr(handler, name) for name in ("queue", "priority", "max_retries")}
                made = declaration.resolved(handler.type, defaults)
                handler.check_data(made.job_data)
            except (InvalidJob, UnknownJobType) as error:
                raise ConfigurationError(f"@schedule of {place}: {error}") from None
            if made.id in found:
                raise ConfigurationError(f"@schedule of {place}: id {made.id!r} is taken; give each its own id=...")
            found[made.id] = made
        return found
