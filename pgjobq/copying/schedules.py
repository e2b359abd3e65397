"""copy_schedules copies schedules from one storage, or from a table of DBJobQ, to another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pgjobq.errors import InvalidJob, Unsupported
from pgjobq.schedules import Schedule
from pgjobq.storage.base import BaseStorage


class ScheduleSource(Protocol):
    """The source of a copy."""

    def list_schedules(self) -> list[Schedule]:
        """Return all schedules. Raises Unsupported if there are none by its kind."""


@dataclass(kw_only=True)
class ScheduleReport:
    """The result of a copy. there: schedules whose id was at the destination. refused: ids and reasons."""

    added: int = 0
    there: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def copy_schedules(source: ScheduleSource, destination: BaseStorage) -> ScheduleReport:
    """Create the schedules of source at the destination. Skips those whose id is already there.

    They go on from the next tick from now. A pause is kept, and so is what a program has declared, so that a worker at
    the destination does not undo what an operator has changed. Raises Unsupported if the destination has no schedules.
    """
    report = ScheduleReport()
    try:
        schedules = source.list_schedules()
    except Unsupported:
        return report
    for one in schedules:
        try:
            if destination.get_schedule(one.id) is not None:
                report.there += 1
                continue
            if one.declared is not None:
                destination.declare_schedules({one.id: Schedule.from_arguments(one.id, one.declared)})
            destination.create_schedule(one)
            report.added += 1
        except InvalidJob as error:
            report.refused[one.id] = str(error)
    return report
