"""The demo's handlers. write_invoice does the work."""

from __future__ import annotations

import html
import os
from datetime import UTC, datetime
from pathlib import Path

from pgjobq import RunningJob, job
from pgjobq.demo.page import INVOICE


@job(queue="invoices")
def write_invoice(
    job: RunningJob,
    order_id: int,
    customer: str,
    email: str,
    country: str,
    item: str,
    quantity: int,
    unit_price: float,
    currency: str,
    express: bool,
) -> None:
    """Write the invoice. If the shop is in the same database, record it there and complete the job in one commit."""
    waited = (datetime.now(UTC) - job.created_at).total_seconds() * 1000
    path = Path(os.environ["PGJOBQ_DEMO_INVOICES"]) / f"invoice-{order_id}.html"
    page = INVOICE.substitute(
        order_id=order_id,
        customer=html.escape(customer),
        email=html.escape(email),
        country=country,
        item=html.escape(item),
        quantity=quantity,
        unit_price=f"{unit_price:,.2f}",
        total=f"{quantity * unit_price:,.2f}",
        currency=currency,
        express="express" if express else "standard",
        date=f"{datetime.now(UTC):%d %B %Y}",
    )
    # Rename a complete file, so that a worker that is killed leaves no partial invoice.
    draft = path.with_suffix(".part")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)
    if "PGJOBQ_DEMO_SHOP" not in os.environ:
        return
    with job.transaction() as conn:
        conn.execute(
            "update orders set invoice = %s, invoiced_at = now(), waited_ms = %s where order_id = %s",
            [str(path), waited, order_id],
        )


@job(queue="invoices")
def begin() -> None:
    """Do nothing. When this job has run, the worker is ready."""
