"""The tables of a storage on one client, prepared at the first use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from pgjobq.forks import renew_in_child
from pgjobq.storage.dynamodb.errors import CONDITION_FAILED, code_of, translate
from pgjobq.storage.dynamodb.expressions import Change
from pgjobq.storage.dynamodb.location import Location
from pgjobq.storage.dynamodb.rows import Item, decode, encode
from pgjobq.storage.dynamodb.schema import prepare

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 8  # concurrent requests of one call
PAGE = 100  # items that one request may name
QUEUES = "queues"  # the item of the table meta that names them


class Table:
    """The table of jobs, and the table meta with the workers and the names of queues.

    The caller's client is used as it is. Reads by key are consistent. Indexes lag a little behind the table.
    """

    def __init__(self, location: Location, *, create: bool) -> None:
        self.location, self._create = location, create
        self.jobs, self.meta = location.table, f"{location.table}_meta"
        self._lock = threading.Lock()
        self._ready = False
        self._client: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._known: set[str] = set()  # queues that are registered
        renew_in_child(self)

    def after_fork(self) -> None:
        """Connect again in a forked child. The connections of the caller's client are closed, so it opens new ones."""
        self._lock, self._client, self._pool, self._ready = threading.Lock(), None, None, False
        if self.location.client is not None:
            self.location.client.close()

    @property
    def client(self) -> Any:
        """The client, after the tables are prepared."""
        if not self._ready:
            with self._lock:
                if self._client is None:
                    self._client = self.location.connect(AT_ONCE)
                if not self._ready:
                    prepare(self._client, self.jobs, self.meta, create=self._create)
                    self._ready = True
        return self._client

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise botocore's errors as subclasses of PgjobqError, with the original error as the cause."""
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            if code_of(error) == "ResourceNotFoundException":
                self._ready, self._known = False, set()
            raise translate(error, self.location.server) from error

    # -- by key ---------------------------------------------------------------------------------------

    def get(self, key: str, *, meta: bool = False) -> Item | None:
        """Return the current item, or None."""
        if not key:
            return None
        where = self.meta if meta else self.jobs
        found = self.client.get_item(TableName=where, Key=encode({"id": key}), ConsistentRead=True)
        return decode(found["Item"]) if "Item" in found else None

    def get_many(self, keys: Sequence[str], *names: str) -> Iterator[Item]:
        """Yield the current items that exist, in no order, with only these attributes."""
        only: dict[str, Any] = {"ConsistentRead": True}
        if names:
            only["ProjectionExpression"] = ", ".join(f"#{name}" for name in names)
            only["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
        for start in range(0, len(keys), PAGE):
            wanted = {self.jobs: {"Keys": [encode({"id": key}) for key in keys[start : start + PAGE]], **only}}
            while wanted:  # an answer has 16 MB at most
                answer = self.client.batch_get_item(RequestItems=wanted)
                yield from map(decode, answer["Responses"].get(self.jobs, ()))
                wanted = answer.get("UnprocessedKeys") or {}

    def put(self, item: Item) -> Item | None:
        """Add an item. If its id exists, change nothing and return the existing item."""
        arguments = Change(absent=["id"]).arguments()
        return self._write(self.client.put_item, self.jobs, Item=encode(item), **arguments)[1]

    def change(self, key: str, change: Change, *, meta: bool = False) -> tuple[bool, Item | None]:
        """Change an item. Return whether the condition held, and the current item, or None if it does not exist.

        Without a condition, a missing item is created.
        """
        if not key:  # DynamoDB rejects an empty key
            return False, None
        where = self.meta if meta else self.jobs
        arguments = {"Key": encode({"id": key}), "ReturnValues": "ALL_NEW", **change.arguments()}
        return self._write(self.client.update_item, where, **arguments)

    def delete(self, key: str, condition: Change, *, meta: bool = False) -> bool:
        """Delete an item. Return whether the condition held."""
        where = self.meta if meta else self.jobs
        return self._write(self.client.delete_item, where, Key=encode({"id": key}), **condition.arguments())[0]

    def _write(self, call: Callable[..., Any], where: str, **arguments: Any) -> tuple[bool, Item | None]:
        try:
            answer = call(TableName=where, ReturnValuesOnConditionCheckFailure="ALL_OLD", **arguments)
        except ClientError as error:
            if code_of(error) != CONDITION_FAILED:
                raise
            old = error.response.get("Item")
            return False, decode(old) if old else None
        return True, decode(answer["Attributes"]) if "Attributes" in answer else None

    # -- by index -------------------------------------------------------------------------------------

    def lane(self, lane: str, *, until: str | None = None, page: int = PAGE) -> Iterator[Item]:
        """Yield entries of by_lane in the order of place. page: how many to read at once."""
        for answer in self._pages("by_lane", {"lane": lane}, {"place": until}, Limit=page):
            yield from map(decode, answer["Items"])

    def of_status(self, status: str, *, until: str | None = None, newest: bool = False) -> Iterator[Item]:
        """Yield entries of by_status in the order of enqueueing."""
        for answer in self._pages("by_status", {"status": status}, {"seq": until}, ScanIndexForward=not newest):
            yield from map(decode, answer["Items"])

    def count(self, status: str) -> int:
        """Return how many entries by_status has. This reads them all."""
        return sum(answer["Count"] for answer in self._pages("by_status", {"status": status}, {}, Select="COUNT"))

    def _pages(
        self, index: str, key: dict[str, str], until: dict[str, str | None], **options: Any
    ) -> Iterator[dict[str, Any]]:
        bounds = {name: value for name, value in until.items() if value is not None}
        conditions = [f"#{name} = :{name}" for name in key] + [f"#{name} <= :{name}" for name in bounds]
        query = {
            "TableName": self.jobs,
            "IndexName": index,
            "KeyConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeNames": {f"#{name}": name for name in key | bounds},
            "ExpressionAttributeValues": encode({f":{name}": value for name, value in (key | bounds).items()}),
            **options,
        }
        while True:
            answer = self.client.query(**query)
            yield answer
            if not (last := answer.get("LastEvaluatedKey")):
                return
            query["ExclusiveStartKey"] = last

    # -- what is in meta ------------------------------------------------------------------------------

    def workers(self) -> list[Item]:
        """Return all current workers. This is a scan, because there are few."""
        pages = self.client.get_paginator("scan").paginate(TableName=self.meta, ConsistentRead=True)
        items = [decode(item) for page in pages for item in page["Items"]]
        return [item for item in items if item["id"].startswith("worker#")]

    def queues(self) -> list[str]:
        """Return the names of all queues that ever had a job."""
        found = self.get(QUEUES, meta=True)
        return sorted(found["names"]) if found is not None else []

    def register(self, queues: Iterable[str]) -> None:
        """Add these names to queues(), once for each process."""
        new = sorted(set(queues) - self._known)
        if new:
            self.client.update_item(
                TableName=self.meta,
                Key=encode({"id": QUEUES}),
                UpdateExpression="ADD #names :new",
                ExpressionAttributeNames={"#names": "names"},
                ExpressionAttributeValues={":new": {"SS": new}},
            )
            self._known |= set(new)

    # -- many at once ---------------------------------------------------------------------------------

    def each(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Call the function with each item, a few at once. Return the results in order."""
        if len(items) < 2:
            return [function(item) for item in items]
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(AT_ONCE, "pgjobq-dynamodb")
        return list(self._pool.map(function, items))

    def close(self) -> None:
        """Close the client, unless it is the caller's. The next use connects again."""
        with self._lock:
            pool, self._pool = self._pool, None
            client, self._client, self._ready = self._client, None, False
        if pool is not None:
            pool.shutdown()
        if client is not None and self.location.client is None:
            client.close()
