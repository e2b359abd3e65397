"""The demo on a storage of the user's choice. The script enqueues, because there is no trigger to do it."""

from __future__ import annotations

import csv
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from pgjobq.connect import open_storage
from pgjobq.demo.parts import (
    HERE,
    PACE,
    PATIENCE,
    Folder,
    Interruption,
    Process,
    invoices_folder,
    print_summary,
    progress_bars,
    worker_process,
)
from pgjobq.errors import PgjobqError
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.storage.base import BaseStorage

Pause = Callable[[float], None]

QUEUE = "pgjobq_demo"  # a separate queue, because the demo must not run other jobs in the database


def run_demo_on(url: str, *, folder: Path | None = None) -> int:
    """Run the demo on the storage that the URL names. Returns the exit status, as run_demo does.

    If it is interrupted, it leaves no process and no folder behind. Its jobs stay in the storage, but none is pending.
    """
    console = Console()
    interruption = Interruption()
    pause = interruption.pause
    shown = re.sub(r"(?<=://)[^@/]*@", "", url)
    try:
        with _storage(url) as storage, invoices_folder(folder) as invoices:
            storage.ping()
            console.print(f"[bold]1.[/] Jobs are kept in [bold]{escape(shown)}[/], in the queue {QUEUE}.")
            first, orders = NewJob(type="begin", queue=QUEUE), _orders()
            variables = {"PGJOBQ_DEMO_INVOICES": str(invoices.path)}
            with (
                worker_process(url, "--queues", QUEUE, **variables) as worker,
                _none_left_waiting(storage, [first, *orders]),
            ):
                console.print("[bold]2.[/] A worker process is running: pgjobq worker pgjobq.demo.tasks")
                _wait_for_worker(storage, worker, first, pause)
                console.print("[bold]3.[/] Orders come in; this script calls [bold]enqueue[/] for each.\n")
                _take_orders(storage, orders, worker, invoices, console, pause)
                interruption.check()
                invoices.done = _summary(storage, orders, invoices, console)
    except KeyboardInterrupt:
        console.print("\ninterrupted")
        return 130
    if not invoices.done:
        console.print("\n[bold red]Not every order has its invoice.[/]")
        return 1
    console.print("\n[bold]Try next[/]", f"  pgjobq list --dsn '{escape(shown)}'", sep="\n", soft_wrap=True)
    console.print("  pgjobq demo             the same on PostgreSQL, where a trigger enqueues")
    console.print("  pgjobq worker --help    run your own handlers")
    return 0


@contextmanager
def _storage(url: str) -> Iterator[BaseStorage]:
    storage = open_storage(url)
    try:
        yield storage
    finally:
        storage.close()


def _orders() -> list[NewJob]:
    with (HERE / "orders.csv").open(newline="", encoding="utf-8") as lines:
        return [
            NewJob(
                type="write_invoice",
                queue=QUEUE,
                priority=9 if row["express"] == "t" else 5,
                data={
                    **row,
                    "order_id": int(row["order_id"]),
                    "quantity": int(row["quantity"]),
                    "unit_price": float(row["unit_price"]),
                    "express": row["express"] == "t",
                },
            )
            for row in csv.DictReader(lines)
        ]


def _wait_for_worker(storage: BaseStorage, worker: Process, first: NewJob, pause: Pause) -> None:
    """Wait until the worker has run a job, because before that the latency of jobs means nothing."""
    deadline = time.monotonic() + PATIENCE
    storage.enqueue_many([first])
    while (job := storage.get_job(first.id)) is None or job.status is not JobStatus.COMPLETED:
        if worker.poll() is not None or time.monotonic() > deadline:
            return  # the summary shows what is missing
        pause(0.05)


@contextmanager
def _none_left_waiting(storage: BaseStorage, orders: Sequence[NewJob]) -> Iterator[None]:
    """Cancel unfinished jobs at the end, because another worker must not run them later."""
    try:
        yield
    finally:
        for job in _jobs(storage, orders):
            if job.status in (JobStatus.PENDING, JobStatus.RUNNING):
                with suppress(PgjobqError):
                    storage.cancel(job.id)


def _take_orders(
    storage: BaseStorage, orders: Sequence[NewJob], worker: Process, invoices: Folder, console: Console, pause: Pause
) -> None:
    with progress_bars(console) as progress:
        ordered = progress.add_task("orders", total=len(orders))
        written = progress.add_task("invoices", total=len(orders))
        for order in orders:
            storage.enqueue_many([order])
            progress.update(ordered, advance=1)
            progress.update(written, completed=min(invoices.files(), len(orders)))
            pause(PACE)
        moved_at, left = time.monotonic(), list(orders)
        while left and time.monotonic() - moved_at < PATIENCE and worker.poll() is None:
            pause(0.05)
            progress.update(written, completed=min(invoices.files(), len(orders)))
            while left and (job := storage.get_job(left[-1].id)) and job.status is JobStatus.COMPLETED:
                left.pop()
                moved_at = time.monotonic()


def _jobs(storage: BaseStorage, orders: Sequence[NewJob]) -> list[Job]:
    return [job for order in orders if (job := storage.get_job(order.id)) is not None]


def _summary(storage: BaseStorage, orders: Sequence[NewJob], invoices: Folder, console: Console) -> bool:
    jobs = _jobs(storage, orders)
    counts = {str(status): sum(job.status is status for job in jobs) for status in {job.status for job in jobs}}
    waits = sorted((job.started_at - job.created_at).total_seconds() * 1000 for job in jobs if job.started_at)
    missing = [order for order in orders if not (invoices.path / f"invoice-{order.data['order_id']}.html").exists()]
    percentiles = statistics.quantiles(waits, n=100) if len(waits) > 1 else None
    print_summary(
        console,
        counts,
        (percentiles[49], percentiles[98]) if percentiles else None,
        "its enqueue to its start",
        f"{len(orders) - len(missing)} of {len(orders)}, in {invoices.path}",
    )
    return not missing and counts == {"completed": len(orders)}
