"""The collections of a storage on one client, prepared at the first use."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.errors import BSONError
from pymongo import MongoClient, ReadPreference, ReturnDocument, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import ConfigurationError as BadSettings
from pymongo.errors import InvalidName, InvalidURI, PyMongoError

from pgjobq.checks import check_seconds, is_cut
from pgjobq.errors import ConfigurationError
from pgjobq.forks import renew_in_child
from pgjobq.storage.mongo.errors import is_missing_index, translate
from pgjobq.storage.mongo.rows import CODEC, Document
from pgjobq.storage.mongo.schema import META, prepare

ANSWER_TIME = 30.0  # seconds to wait for the answer to a request


class Database:
    """The collections jobs, workers and meta. The caller's client is used as it is, and not closed.

    Reads go to the primary. Writes wait for a majority, unless the client has another setting. Raises
    ConfigurationError for an invalid URI.
    """

    def __init__(self, uri: str | MongoClient[Any], database: str | None, collection: str, timeout: float) -> None:
        check_seconds("timeout", timeout)
        self._uri = uri
        self._timeout = timeout
        self._lock = threading.Lock()
        self._ready = False
        self._client: MongoClient[Any] | None = self._connected()
        self._inherited: MongoClient[Any] | None = None  # the parent's client
        name = database or _named(self._client) or "jobqueue"
        try:
            self._names = (name, self._client[name][collection].name)
        except InvalidName as error:
            raise ConfigurationError(f"database or collection: {error}; use another name") from None
        renew_in_child(self)

    def after_fork(self) -> None:
        """Connect again in a forked child. The caller's client does this by itself."""
        self._lock, self._ready = threading.Lock(), False
        if isinstance(self._uri, str):
            self._inherited, self._client = self._client, None  # kept, because it would warn that it was not closed

    def _connected(self) -> MongoClient[Any]:
        """A client, which connects when it is used."""
        if not isinstance(self._uri, str):
            return self._uri
        milliseconds = round(self._timeout * 1000)
        settings: dict[str, Any] = {
            "serverSelectionTimeoutMS": milliseconds,
            "connectTimeoutMS": milliseconds,
            "socketTimeoutMS": round(max(self._timeout, ANSWER_TIME) * 1000),
            "appname": "pgjobq",
        }
        own = {key: value for key, value in settings.items() if f"{key.lower()}=" not in self._uri.lower()}
        try:
            if is_cut(self._uri):
                raise ValueError
            return MongoClient(self._uri, connect=False, **own)
        except (InvalidURI, BadSettings, ValueError):
            # The library's messages may contain the password.
            raise ConfigurationError(
                "uri: MongoDB does not understand this URI; use mongodb://user:password@host:port/database, and"
                " percent-encode special characters in the user and the password"
            ) from None

    @property
    def server(self) -> str:
        """The address of the server, without user and password."""
        client = self._client
        if client is None:
            return "?"
        known = sorted(client.topology_description.server_descriptions(), key=str)
        return ",".join(f"{host}:{port}" if port else host for host, port in known) or "?"

    def collection(self, suffix: str = "") -> Collection[Document]:
        """Return a collection without preparing it."""
        if self._client is None:
            self._client = self._connected()
        client, (database, name) = self._client, self._names
        concern = client.write_concern
        if concern.is_server_default:
            concern = WriteConcern("majority", wtimeout=round(self._timeout * 1000))
        return client[database].get_collection(name + suffix, CODEC, ReadPreference.PRIMARY, concern)

    @property
    def jobs(self) -> Collection[Document]:
        """The prepared collection of jobs."""
        jobs = self.collection()
        if not self._ready:
            with self._lock:
                if not self._ready:
                    prepare(jobs, self.collection("_meta"))
                    self._ready = True
        return jobs

    @property
    def workers(self) -> Collection[Document]:
        """The collection of workers and their leases. It has one document for each process."""
        return self.collection("_workers")

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Raise pymongo's errors as subclasses of PgjobqError, with the original error as the cause."""
        try:
            yield
        except (PyMongoError, BSONError) as error:
            if is_missing_index(error):
                self._ready = False
            raise translate(error, self.server) from error

    def now(self) -> datetime:
        """Return the server's time in milliseconds. A job that was enqueued before, due at once, is due by then."""
        return self._hello()["localTime"].replace(tzinfo=UTC)  # type: ignore[no-any-return]  # an answer is a dict

    def has_transactions(self) -> bool:
        """Whether the server is a replica set or a sharded cluster."""
        hello = self._hello()
        return "setName" in hello or hello.get("msg") == "isdbgrid"

    def _hello(self) -> dict[str, Any]:
        return self.collection().database.client.admin.command("hello")

    def take_places(self, count: int) -> tuple[int, datetime]:
        """Take count places in the order of enqueueing. Return the first of them, and the server's time.

        Places are microseconds, so they grow even if a failover loses some. For the same reason the write need not be
        durable.
        """
        meta = self.collection("_meta").with_options(write_concern=WriteConcern(1))
        now = {"$multiply": [{"$toLong": "$$NOW"}, 1000]}
        change = [{"$set": {"last": {"$add": [{"$max": ["$last", now]}, count]}, "at": "$$NOW"}}]
        while True:
            _ = self.jobs  # prepares the collections, so that the document exists
            found = meta.find_one_and_update({"_id": META}, change, return_document=ReturnDocument.AFTER)
            if found is not None:
                return found["last"] - count + 1, found["at"]
            self._ready = False  # the database was dropped

    def close(self) -> None:
        """Close the client, unless it is the caller's. The next use connects again."""
        client = self._client
        if client is not None and isinstance(self._uri, str):
            client.close()
            self._client, self._ready = None, False


def _named(client: MongoClient[Any]) -> str | None:
    """Return the database in the URI, or None. admin does not count, because it is only for the login."""
    try:
        name = client.get_default_database().name
    except BadSettings:
        return None
    return None if name == "admin" else name


def milliseconds(seconds: float) -> int:
    """Convert seconds to milliseconds, rounded up."""
    return -(-timedelta(seconds=seconds) // timedelta(milliseconds=1))
