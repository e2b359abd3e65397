"""The demo: a trigger on the orders table of a shop enqueues, and a worker process writes the invoices."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.markup import escape

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
from pgjobq.devserver import DevServer
from pgjobq.postgres.schema import migrate

Connection = psycopg.Connection[Any]


def run_demo(*, keep: bool = False, folder: Path | None = None) -> int:
    """Run the demo. Returns the exit status, which is 0 if every order has its invoice and every job is completed.

    If it is interrupted, it leaves no process and no folder behind.
    """
    console = Console()
    interruption = Interruption(at_once=True)
    try:
        with invoices_folder(folder) as invoices, DevServer() as server:
            console.print("[bold]1.[/] An embedded PostgreSQL is running; [bold]pgjobq migrate[/] installs the queue.")
            migrate(server.dsn)
            variables = {"PGJOBQ_DEMO_INVOICES": str(invoices.path), "PGJOBQ_DEMO_SHOP": "yes"}
            with (
                psycopg.connect(server.dsn, autocommit=True) as conn,
                worker_process(server.dsn, **variables) as worker,
            ):
                console.print(f"[bold]2.[/] A worker process is running: {escape('pgjobq worker pgjobq.demo.tasks')}")
                console.print("[bold]3.[/] Orders come in; a trigger on their table calls [bold]enqueue_job[/].\n")
                _take_orders(conn, worker, console, interruption)
                interruption.check()
                invoices.done = _summary(conn, invoices, console)
                if keep:
                    _keep(server.dsn, console, interruption)
    except KeyboardInterrupt:
        console.print("\ninterrupted")
        return 130
    return 0 if invoices.done else 1


def _take_orders(conn: Connection, worker: Process, console: Console, interruption: Interruption) -> None:
    conn.execute((HERE / "shop.sql").read_bytes())
    with conn.cursor().copy("copy incoming_orders from stdin (format csv, header)") as copy:
        copy.write((HERE / "orders.csv").read_bytes())
    ids = [row[0] for row in conn.execute("select order_id from incoming_orders order by order_id")]
    _wait_for_worker(conn, worker, interruption)
    with progress_bars(console) as progress:
        ordered = progress.add_task("orders", total=len(ids))
        written = progress.add_task("invoices", total=len(ids))
        moved_at, count, sent = time.monotonic(), -1, 0
        while count < len(ids):
            if sent < len(ids):
                conn.execute("insert into orders select * from incoming_orders where order_id = %s", [ids[sent]])
                sent += 1
                progress.update(ordered, completed=sent)
            interruption.pause(PACE if sent < len(ids) else 0.05)
            if sent % 10 == 0:
                row = conn.execute("select count(*) from orders where invoiced_at is not null").fetchone()
                progress.update(written, completed=row[0] if row else 0)
                if row and row[0] != count:
                    moved_at, count = time.monotonic(), row[0]
            if time.monotonic() - moved_at > PATIENCE or worker.poll() is not None:
                return  # the summary shows what is missing


def _wait_for_worker(conn: Connection, worker: Process, interruption: Interruption) -> None:
    deadline = time.monotonic() + PATIENCE
    asleep = "select count(*) from pgjobq.worker_status where asleep"
    while conn.execute(asleep).fetchone() == (0,) and worker.poll() is None and time.monotonic() < deadline:
        interruption.pause(0.05)


def _summary(conn: Connection, invoices: Folder, console: Console) -> bool:
    counts = dict(conn.execute("select status, jobs from pgjobq.count_jobs()").fetchall())
    orders, missing, p50, p99 = conn.execute(
        """
        select count(*), count(*) filter (where invoice is null),
               percentile_cont(0.5) within group (order by waited_ms),
               percentile_cont(0.99) within group (order by waited_ms)
          from orders
        """
    ).fetchone() or (0, 0, None, None)
    files = invoices.files()
    done = bool(orders) and missing == 0 and files == orders and counts == {"completed": orders}
    waits = None if p50 is None or p99 is None else (p50, p99)
    print_summary(
        console, counts, waits, "the order's insert to its handler", f"{files} of {orders}, in {invoices.path}"
    )
    if not done:
        console.print("\n[bold red]Not every order has its invoice.[/]")
        return False
    console.print("\n[bold]Try next[/]")
    console.print("  pgjobq dev              a server for development")
    console.print("  pgjobq demo --keep      this demo, with a server that you can explore with psql")
    console.print("  pgjobq worker --help    run your own handlers")
    return True


def _keep(dsn: str, console: Console, interruption: Interruption) -> None:
    console.print(f"\nThe server runs until Ctrl-C:\n  psql '{dsn}'\n  pgjobq stats --dsn '{dsn}'", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        while True:
            interruption.pause(1)
