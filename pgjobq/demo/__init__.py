"""The demo: a shop whose orders table enqueues, and a worker process that writes the invoices."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pgjobq.devserver import DevServer, die_with_parent
from pgjobq.postgres.schema import migrate

HERE = Path(__file__).parent
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PACE = 0.008  # seconds between two orders
PATIENCE = 30.0  # seconds without progress after which the demo gives up

Connection = psycopg.Connection[Any]


def run_demo(*, keep: bool = False, folder: Path | None = None) -> int:
    """Run the demo; the exit status: 0 when every order has its invoice and every job is completed.

    Interrupted at any moment, it leaves no process and no folder behind.
    """
    console = Console()
    made, invoices, done = folder is None, folder, False
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    try:
        invoices = Path(tempfile.mkdtemp(prefix="pgjobq-invoices-")) if invoices is None else invoices
        invoices.mkdir(parents=True, exist_ok=True)
        with DevServer() as server:
            console.print("[bold]1.[/] An embedded PostgreSQL is running; [bold]pgjobq migrate[/] installs the queue.")
            migrate(server.dsn)
            with psycopg.connect(server.dsn, autocommit=True) as conn, _worker(server.dsn, invoices) as worker:
                console.print(f"[bold]2.[/] A worker process is up: {escape('pgjobq worker pgjobq.demo.tasks')}")
                console.print("[bold]3.[/] Orders come in; a trigger on their table calls [bold]enqueue_job[/].\n")
                _take_orders(conn, worker, console)
                done = _summary(conn, invoices, console)
                if keep:
                    _keep(server.dsn, console)
    except KeyboardInterrupt:
        console.print("\ninterrupted")
        return 130
    finally:
        if made and invoices is not None and not done:
            shutil.rmtree(invoices, ignore_errors=True)
    return 0 if done else 1


@contextmanager
def _worker(dsn: str, invoices: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "pgjobq", "worker", "pgjobq.demo.tasks", "--log-level", "warning"]
    process = subprocess.Popen(  # noqa: S603  # our own program, with arguments of our own
        command,
        env={**os.environ, "PGJOBQ_DSN": dsn, "PGJOBQ_DEMO_INVOICES": str(invoices)},
        start_new_session=True,  # Ctrl-C is ours to handle
        preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl, and no thread runs yet
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _take_orders(conn: Connection, worker: subprocess.Popen[bytes], console: Console) -> None:
    conn.execute((HERE / "shop.sql").read_bytes())
    with conn.cursor().copy("copy incoming_orders from stdin (format csv, header)") as copy:
        copy.write((HERE / "orders.csv").read_bytes())
    ids = [row[0] for row in conn.execute("select order_id from incoming_orders order by order_id")]
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    _wait_for_worker(conn, worker)
    with Progress(*columns, console=console) as progress:
        ordered = progress.add_task("orders", total=len(ids))
        written = progress.add_task("invoices", total=len(ids))
        moved_at, count, sent = time.monotonic(), -1, 0
        while count < len(ids):
            if sent < len(ids):
                conn.execute("insert into orders select * from incoming_orders where order_id = %s", [ids[sent]])
                sent += 1
                progress.update(ordered, completed=sent)
            time.sleep(PACE if sent < len(ids) else 0.05)
            if sent % 10 == 0:
                row = conn.execute("select count(*) from orders where invoiced_at is not null").fetchone()
                progress.update(written, completed=row[0] if row else 0)
                if row and row[0] != count:
                    moved_at, count = time.monotonic(), row[0]
            if time.monotonic() - moved_at > PATIENCE or worker.poll() is not None:
                return  # the summary tells what is missing


def _wait_for_worker(conn: Connection, worker: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    asleep = "select count(*) from pgjobq.worker_status where asleep"
    while conn.execute(asleep).fetchone() == (0,) and worker.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _summary(conn: Connection, invoices: Path, console: Console) -> bool:
    counts = dict(conn.execute("select status, jobs from pgjobq.count_jobs()").fetchall())
    orders, missing, p50, p99 = conn.execute(
        """
        select count(*), count(*) filter (where invoice is null),
               percentile_cont(0.5) within group (order by waited_ms),
               percentile_cont(0.99) within group (order by waited_ms)
          from orders
        """
    ).fetchone() or (0, 0, None, None)
    files = len(list(invoices.glob("invoice-*.html")))
    done = bool(orders) and missing == 0 and files == orders and counts == {"completed": orders}
    console.print()
    console.print(f"  jobs           {', '.join(f'{n} {status}' for status, n in sorted(counts.items())) or 'none'}")
    if p50 is not None:
        console.print(f"  start latency  p50 {p50:.1f} ms, p99 {p99:.1f} ms, from the order's insert to its handler")
    console.print(f"  invoices       {files} of {orders}, in {invoices}", soft_wrap=True)
    if not done:
        console.print("\n[bold red]Not every order has its invoice.[/]")
        return False
    console.print("\n[bold]Try next[/]")
    console.print("  pgjobq dev              a server of your own to develop against")
    console.print("  pgjobq demo --keep      this demo, and a server to look around in with psql")
    console.print("  pgjobq worker --help    run your own handlers")
    return True


def _keep(dsn: str, console: Console) -> None:
    console.print(f"\nThe server stays until Ctrl-C:\n  psql '{dsn}'\n  pgjobq stats --dsn '{dsn}'", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)


def _interrupt(*_: object) -> NoReturn:
    for number in SIGNALS:  # one is enough: a second would cut the cleaning up short
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt
