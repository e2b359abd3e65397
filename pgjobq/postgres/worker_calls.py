"""Typed methods for the SQL functions with which a worker joins, sleeps and does maintenance; see Calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgjobq.postgres import answers
from pgjobq.postgres.statements import FunctionCall, InSchema, Rows


def as_list(names: Sequence[str] | None) -> list[str] | None:
    """Return the names as a list, because psycopg sends a tuple as a record."""
    return None if names is None else list(names)


class WorkerCalls:
    """The part of Calls for workers."""

    def __init__(self, schema: str) -> None:
        self._sql = InSchema(schema)

    def register_worker(self, name: str, queues: Sequence[str] | None) -> FunctionCall[int]:
        """Register a worker that sends heartbeats. Return its id."""
        statement = self._sql["select {schema}.register_worker(%s, %s::text[], true)"]
        return FunctionCall(statement, [name, as_list(queues)], answers.value)

    def heartbeat_worker(self, worker_id: int) -> FunctionCall[bool]:
        """Send a heartbeat. Return False if the worker is not registered any more."""
        return FunctionCall(self._sql["select {schema}.heartbeat_worker(%s)"], [worker_id], answers.value)

    def retire_worker(self, worker_id: int) -> FunctionCall[Rows]:
        """Delete the worker's registration, and put its jobs back in line."""
        return FunctionCall(self._sql["select {schema}.retire_worker(%s)"], [worker_id], answers.rows)

    def leave_types(self, worker_id: int, types: Sequence[str]) -> FunctionCall[Rows]:
        """Record that the worker takes no jobs of these types."""
        return FunctionCall(
            self._sql["select {schema}.leave_types(%s, %s::text[])"], [worker_id, list(types)], answers.rows
        )

    def watch_workers(
        self, worker_id: int | None, queues: Sequence[str] | None, unanswered: list[int], grace: float, known: list[int]
    ) -> FunctionCall[tuple[int, list[dict[str, Any]], int, list[int], bool, int | None, float | None]]:
        """Do a round of maintenance. Return rescued, dead, watched, pollers, waiting, unknown, and next_due()."""
        # next_due is called in the same statement, so that an idle worker sends one statement less.
        text = """select rescued, dead, watched, pollers, waiting, unknown, {schema}.next_due()
            from {schema}.watch_workers(%s, %s::text[], %s::integer[], make_interval(secs => %s), %s::bigint[])"""
        return FunctionCall(self._sql[text], [worker_id, as_list(queues), unanswered, grace, known], answers.row)

    def set_worker_state(
        self,
        worker_id: int | None,
        state: str,
        busy: bool,
        queues: Sequence[str] | None,
        poll_interval: float,
        channel: str | None,
    ) -> FunctionCall[tuple[Any, ...]]:
        """Publish this worker's state. Return the open transactions, the pollers, and whether it is on watch."""
        text = """select open::text[], pollers, on_watch
            from {schema}.set_worker_state(%s, %s, %s, %s::text[], %s, %s)"""
        return FunctionCall(
            self._sql[text], [worker_id, state, busy, as_list(queues), poll_interval, channel], answers.row
        )

    def call_workers(self, worker_id: int | None, call: str) -> FunctionCall[Rows]:
        """Send a call to other workers."""
        return FunctionCall(self._sql["select {schema}.call_workers(%s, %s)"], [worker_id, call], answers.rows)

    def still_open(self, transactions: list[str]) -> FunctionCall[list[str]]:
        """Call open_transactions. Return those of the given transactions that are still open."""
        statement = self._sql["select {schema}.open_transactions(null, %s::xid8[])::text[]"]
        return FunctionCall(statement, [transactions], answers.value)

    def notifiers_waiting(self) -> FunctionCall[int]:
        """Return how many committing transactions wait for each other because they notify."""
        return FunctionCall(self._sql["select {schema}.notifiers_waiting()"], [], answers.value)

    def next_due(self) -> FunctionCall[float | None]:
        """Return the seconds until the next scheduled job is due, or None when no job is scheduled."""
        return FunctionCall(self._sql["select {schema}.next_due()"], [], answers.value)

    def advance_floors(
        self, safe: int, opened: list[str], queues: list[str], priorities: list[int]
    ) -> FunctionCall[tuple[int, list[str], bool]]:
        """Move floors up. Return two values to pass to the next call, and whether a floor was moved."""
        text = """select safe, open::text[], moved
            from {schema}.advance_floors(%s, %s::xid8[], %s::text[], %s::integer[])"""
        return FunctionCall(self._sql[text], [safe, opened, queues, priorities], answers.row)
