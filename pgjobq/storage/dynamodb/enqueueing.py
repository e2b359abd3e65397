"""Add jobs: one job with a conditional put, several in a transaction, more in several transactions."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

from botocore.exceptions import ClientError

from pgjobq.errors import DuplicateJob
from pgjobq.storage.dynamodb.connection import Table
from pgjobq.storage.dynamodb.errors import CANCELLED, code_of, reasons_of
from pgjobq.storage.dynamodb.expressions import Change
from pgjobq.storage.dynamodb.rows import Item, encode

MAX_ITEMS, MAX_BYTES = 100, 3_500_000  # of a transaction; DynamoDB's own limit is 4 MB
CONFLICTS = 6  # attempts of a transaction that conflicts with others


def add(table: Table, items: Sequence[Item]) -> None:
    """Add all items or none, if they fit in one transaction. Raises DuplicateJob."""
    by_id = {item["id"]: item for item in items}
    if len(by_id) < len(items):
        raise _duplicate(next(item for item in items if by_id[item["id"]] is not item))
    if len(items) == 1:
        there = table.put(items[0])
        # The client repeats a put whose answer was lost, and may then find its own item.
        if there is not None and any(there[name] != items[0][name] for name in ("seq", "created_at")):
            raise _duplicate(items[0])
        return
    portions = list(_portions(items))
    if len(portions) > 1:
        # This almost always finds an existing id before anything is added.
        for there in table.get_many(list(by_id), "id"):
            raise _duplicate(there)
    added: list[Item] = []
    try:
        for portion in portions:
            _add_in_transaction(table, portion)
            added += portion
    except DuplicateJob:
        table.each(lambda item: _take_back(table, item), added)
        raise


def _portions(items: Sequence[Item]) -> Iterator[list[Item]]:
    portion: list[Item] = []
    size = 0
    for item in items:
        bytes_of_it = 2_000 + len(item["data"].encode())  # the other fields have no more
        if portion and (len(portion) == MAX_ITEMS or size + bytes_of_it > MAX_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += bytes_of_it
    yield portion


def _add_in_transaction(table: Table, items: Sequence[Item]) -> None:
    condition = Change(absent=["id"]).arguments()
    puts = [{"Put": {"TableName": table.jobs, "Item": encode(item), **condition}} for item in items]
    for left in reversed(range(CONFLICTS)):
        try:
            table.client.transact_write_items(TransactItems=puts)
            return
        except ClientError as error:
            if code_of(error) != CANCELLED:
                raise
            reasons = reasons_of(error)
            if "ConditionalCheckFailed" in reasons:
                raise _duplicate(items[reasons.index("ConditionalCheckFailed")]) from None
            if not left or "TransactionConflict" not in reasons:
                raise
            time.sleep(0.02 * 2 ** (CONFLICTS - left) * random.random())  # noqa: S311  # jitter, not secrecy


def _take_back(table: Table, item: Item) -> None:
    table.delete(item["id"], Change(when={"status": "pending", "attempts": 0, "seq": item["seq"]}))


def _duplicate(item: Item) -> DuplicateJob:
    return DuplicateJob(f"job_id: {item['id']!r} exists already; use another id")
