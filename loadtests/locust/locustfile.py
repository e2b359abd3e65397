"""The locustfile of the load test. Run it by `make loadtest`, or by `locust -f` with PGJOBQ_DSN set.

The load ramps up, bursts and soaks. Then the workers finish the jobs, and the checks verify that no job was lost. The
exit status is 0 if the checks and limits hold, 1 if one of them does not, and 2 if the load test cannot run.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import locust  # before psycopg, because it patches the functions that psycopg waits with
import psycopg
from check import Finding, examine, server_time
from client import CONNECT, Client
from ledger import Ledger
from limits import Calls, failed_calls, slowest
from locust.env import Environment
from options import add_options
from stages import Stage, stage_at, stages
from target import Refused, Target, prepare
from users import (
    END_TO_END,
    PATIENCE,
    START,
    BulkImporter,
    DashboardReader,
    EndToEndCaller,
    SqlEnqueuer,
    TriggerWriter,
)

__all__ = ["BulkImporter", "DashboardReader", "EndToEndCaller", "RampBurstSoak", "SqlEnqueuer", "TriggerWriter"]

DISTRIBUTED = {"--processes", "--master", "--worker"}
CSV_PAUSE = 1.5  # seconds; locust writes its CSV files once a second, but not at its end
CHECK = "CHECK"  # the method by which the findings appear among locust's requests


class Run:
    """The current or last run: its start, by the server's clock, and its findings."""

    since: datetime | None = None
    findings: tuple[Finding, ...] = ()


class RampBurstSoak(locust.LoadTestShape):
    """The stages, with the lengths of the options. The load ends early when --max-jobs jobs have been enqueued."""

    _stage: Stage | None = None

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be now."""
        assert self.runner is not None  # locust sets it before the first tick
        options: Any = self.runner.environment.parsed_options
        try:
            plan = _plan(options)
        except ValueError as error:  # options can be changed on locust's page
            print(f"load test: {error}", file=sys.stderr)
            return None
        stage = stage_at(plan, time.perf_counter() - self.start_time)
        if Client.ledger.acknowledged.total() >= options.max_jobs:
            print(f"{options.max_jobs:,} jobs have been enqueued, so the load ends", flush=True)
            stage = None
        if stage is not None and stage != self._stage:
            print(f"{stage.name}: {stage.users} users, until {stage.end:g} s", flush=True)
        self._stage = stage
        return None if stage is None else (stage.users, stage.rate)


def _refuse_more_processes(**_: Any) -> None:
    """Refuse to run with several locust processes, because the ledger belongs to one process."""
    if asked := DISTRIBUTED & {word.partition("=")[0] for word in sys.argv}:
        _refuse(f"{asked.pop()}: this load test runs in one locust process; `make bench` measures the highest rates")


def _prepare(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    try:
        _plan(options)
        dsn, schema = os.environ.get("PGJOBQ_DSN", ""), os.environ.get("PGJOBQ_SCHEMA", "pgjobq")
        target = Target(dsn=dsn, schema=schema, queue=options.queue)
        notes = prepare(target)
    except (Refused, ValueError) as refused:
        _refuse(str(refused))
    for note in notes:
        print(f"load test: note: {note}", file=sys.stderr)
    Client.target, Client.ledger = target, Ledger()
    environment.host = target.place()  # shown in the report
    environment.stop_timeout = max(environment.stop_timeout, PATIENCE + 5)  # so that no call is cut off


def _start(**_: Any) -> None:
    Run.since, Run.findings = None, ()
    with Client.target.connect() as conn:
        Run.since = server_time(conn)


def _check(environment: Environment, **_: Any) -> None:
    """Run the checks before the report is written, so that the report contains the findings."""
    if Run.since is None:
        return  # the run never started
    options: Any = environment.parsed_options
    request: Any = environment.events.request
    limits = _limits(environment)
    try:
        with Client.target.connect() as conn:
            runs = os.environ.get("LOADTEST_RUNS")
            found = examine(
                conn,
                Client.target,
                Client.ledger,
                Run.since,
                drain=options.drain_seconds,
                runs=Path(runs) if runs else None,
            )
    except psycopg.Error as error:
        found = [Finding(name="nothing lost", ok=False, detail=f"could not be checked: {error}")]
    Run.findings = (*limits, *found)
    Client.ledger.clear()
    environment.process_exit_code = int(not all(finding.ok for finding in Run.findings))
    for finding in Run.findings:
        request.fire(
            request_type=CHECK,
            name=finding.name[0].upper() + finding.name[1:],  # sorts the findings before the calls
            response_time=None,
            response_length=0,
            exception=None if finding.ok else finding.detail,
            context={},
        )
    if options.csv_prefix:
        time.sleep(CSV_PAUSE)
    if not options.headless:
        _tell()


def _stop(environment: Environment, **_: Any) -> None:
    """Stop the run, because at SIGTERM locust reads its exit status before it stops the run and the checks set it."""
    if environment.runner is not None:
        environment.runner.stop()


def _tell(**_: Any) -> None:
    """Print the findings at the end of the output, below locust's tables."""
    if not Run.findings:
        return
    passed = all(finding.ok for finding in Run.findings)
    print(f"\nLoad test of {Client.target.place()}, queue {Client.target.queue}: {'passed' if passed else 'FAILED'}")
    for finding in Run.findings:
        print(f"  {'ok  ' if finding.ok else 'FAIL'}  {finding.name:20} {finding.detail}")
    sys.stdout.flush()


def _refuse(reason: str) -> NoReturn:
    print(f"load test: {reason}", file=sys.stderr)
    sys.exit(2)


def _plan(options: Any) -> list[Stage]:
    return stages(
        ramp=options.ramp_seconds,
        burst=options.burst_seconds,
        soak=options.soak_seconds,
        users=options.steady_users,
        burst_users=options.burst_users,
    )


def _limits(environment: Environment) -> list[Finding]:
    options: Any = environment.parsed_options
    calls = {
        (entry.method, entry.name): Calls(
            name=entry.name,
            requests=entry.num_requests,
            failures=entry.num_failures,
            p99=entry.get_response_time_percentile(0.99),
        )
        for entry in environment.stats.entries.values()
        if (entry.method, entry.name) != START  # START is a part of another call
    }
    errors = sum(one["count"] for one in environment.runner.exceptions.values()) if environment.runner else 0
    sql = [call for key, call in calls.items() if key not in (END_TO_END, CONNECT)]
    waits = [call for key, call in calls.items() if key == END_TO_END]
    findings = [
        failed_calls(list(calls.values()), errors, options.max_failed_percent),
        slowest("p99 of SQL calls", sql, options.max_p99_ms),
        slowest("p99 end to end", waits, options.max_end_to_end_p99_ms),
    ]
    return [finding for finding in findings if finding is not None]


_events: Any = locust.events
_events.init_command_line_parser.add_listener(_refuse_more_processes)
_events.init_command_line_parser.add_listener(add_options)
_events.init.add_listener(_prepare)
_events.test_start.add_listener(_start)
_events.test_stop.add_listener(_check)
_events.quitting.add_listener(_stop)
_events.quit.add_listener(_tell)
