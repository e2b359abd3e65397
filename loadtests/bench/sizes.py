"""The sizes of the measures: for the quick run, for the full run, and for a run that only tests the bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a run. The defaults are those of the quick run. repeat_long: repetitions of slow measures."""

    repeat: int = 3
    repeat_long: int = 2
    fleet: int = 8  # processes
    crews: Sequence[int] = (2, 4, 8)  # worker processes that share a drain
    drain_jobs: int = 50_000
    latency_jobs: int = 600
    load_seconds: int = 10
    load_rate: int = 2000  # jobs/s
    future_jobs: int = 100_000
    finished_jobs: int = 300_000
    snapshot_jobs: int = 60_000
    waiting_jobs: int = 40_000
    single_table_seconds: float = 30  # after which the drain of the single table is stopped
    plan_jobs: int = 2000  # for each batch size, but at least plan_batches batches
    plan_batches: int = 3
    lane_jobs: int = 20_000
    clients: Sequence[int] = (1, 8, 64)
    fleet_clients: Sequence[int] = (64,)  # that enqueue while a fleet is idle
    enqueue_seconds: int = 2  # after the second for connecting and warming up
    bulk_jobs: int = 20_000
    idle_seconds: float = 12
    herd_jobs: int = 5
    quiet: float = 2  # seconds after a fleet's start, and between two single jobs
    memory_jobs: int = 100_000
    starts: int = 5
    kills: int = 2
    function_calls: int = 300


QUICK = Sizes()
FULL = Sizes(
    repeat=5,
    repeat_long=3,
    drain_jobs=200_000,
    latency_jobs=6000,
    load_seconds=60,
    future_jobs=1_000_000,
    finished_jobs=5_000_000,
    snapshot_jobs=300_000,
    waiting_jobs=200_000,
    single_table_seconds=120,
    plan_jobs=20_000,
    plan_batches=20,
    lane_jobs=100_000,
    fleet_clients=(1, 8, 64),
    enqueue_seconds=4,
    bulk_jobs=100_000,
    idle_seconds=120,
    herd_jobs=20,
    memory_jobs=1_000_000,
    starts=15,
    kills=5,
    function_calls=2000,
)
TINY = Sizes(
    repeat=1,
    repeat_long=1,
    fleet=2,
    crews=(2,),
    drain_jobs=400,
    latency_jobs=20,
    load_seconds=1,
    load_rate=100,
    future_jobs=400,
    finished_jobs=400,
    snapshot_jobs=2000,
    waiting_jobs=100,
    single_table_seconds=5,
    plan_jobs=20,
    plan_batches=1,
    lane_jobs=1000,
    clients=(8,),
    fleet_clients=(8,),
    enqueue_seconds=0,
    bulk_jobs=2000,
    idle_seconds=1,
    herd_jobs=2,
    quiet=0.7,
    memory_jobs=400,
    starts=1,
    kills=1,
    function_calls=20,
)
SIZES = {"quick": QUICK, "full": FULL, "tiny": TINY}
