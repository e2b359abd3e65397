"""A steady stream of single jobs from many clients, and the time of each job from enqueue to completion."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from bench.drain import wait_settled
from bench.harness import Bench, files, process, wait_until, workers
from bench.pgbench import pgbench
from bench.rows import Line, Row, at

CLIENTS = 8
WARM = 2  # seconds whose jobs are not measured


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The result of a stream: the achieved jobs a second, and the ms of each job, in the order of enqueueing."""

    achieved: float
    waits: list[float]

    def quarter(self, number: int) -> float:
        """Return the p99 of one quarter of the jobs, from 0 (the first) to 3 (the last)."""
        size = len(self.waits) // 4
        return at(0.99, self.waits[number * size : (number + 1) * size])


def load(bench: Bench) -> list[Line]:
    """Measure the p99 from enqueue to completion while 8 clients enqueue 2,000 single jobs a second.

    The rows are for the first and last quarter of the jobs. The time is from the start of the enqueueing transaction on
    the server to the completing statement. The floor is a loop that claims and completes, and sleeps 2 ms if there are
    no jobs. It runs for half the time.
    """
    rate, seconds = bench.sizes.load_rate, bench.sizes.load_seconds
    with bench.database() as dsn, workers(dsn):
        ours = _offer(dsn, rate, seconds)
    with bench.database() as dsn, _poller(dsn):
        bare = _offer(dsn, rate, max(2, seconds // 2))
    notes = {
        "offered": rate,
        "achieved": ours.achieved,
        "achieved_floor": bare.achieved,
        "p50": at(0.5, ours.waits),
        "max": max(ours.waits),
        "p99_by_quarter": [ours.quarter(number) for number in range(4)],
    }
    offered = f"{rate:,} jobs/s offered ({ours.achieved:,.0f} came), {seconds} s"

    def row(name: str, figure: float, floor_name: str, floor: float, **aim: Any) -> Row:
        return Row(
            measure="load",
            name=f"{offered}: {name}",
            unit="ms",
            figures=[figure],
            floor_name=floor_name,
            floors=[floor],
            notes=notes,
            **aim,
        )

    p99, floor_p99 = at(0.99, ours.waits), at(0.99, bare.waits)
    return [
        row("end-to-end p99", p99, "bare polling loop", floor_p99, aim="<= 20", aim_on="figure"),
        row("p99 of the last quarter", ours.quarter(3), "the first quarter", ours.quarter(0), aim="<= 1.5"),
    ]


def _offer(dsn: str, rate: int, seconds: int) -> Stream:
    pgbench(
        dsn, "select enqueue_job('noop', '{\"n\": 1}');", CLIENTS, seconds + WARM - 1, rate=rate
    )  # one more second for connecting
    with psycopg.connect(dsn, autocommit=True) as conn:
        wait_settled(conn)
        rows = conn.execute(
            """select extract(epoch from created_at - min(created_at) over ())::float8,
                      extract(epoch from finished_at - created_at)::float8 * 1000
                 from pgjobq.jobs
                order by created_at"""
        ).fetchall()
    waits = [wait for came, wait in rows if came > WARM]
    return Stream(achieved=len(waits) / (rows[-1][0] - WARM), waits=waits)


@contextmanager
def _poller(dsn: str) -> Iterator[None]:
    with files() as folder, process([sys.executable, "-m", "bench.poller", dsn, str(folder)], {}):
        wait_until((folder / "ready").exists, "the polling loop did not start")
        yield
