"""The collections of a storage, on one client; made ready at the first use."""

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

ANSWER_TIME = 30.0  # seconds to wait for the answer of a server that took the question


class Database:
    """jobs, workers and meta: the collections. A client of the caller's is used as it is, and not closed.

    Reads go to the primary; writes wait for a majority, unless the client says otherwise. Raises
    ConfigurationError for a URI that is none.
    """

    def __init__(self, uri: str | MongoClient[Any], database: str | None, collection: str, timeout: float) -> None:
        check_seconds("timeout", timeout)
        self._uri = uri
        self._timeout = timeout
        self._lock = threading.Lock()
        self._ready = False
        self._client: MongoClient[Any] | None = self._connected()
        self._inherited: MongoClient[Any] | None = None  # of the parent's
        name = database or _named(self._client) or "jobqueue"
        try:
            self._names = (name, self._client[name][collection].name)
        except InvalidName as error:
            raise ConfigurationError(f"database or collection: {error}; give another name") from None
        renew_in_child(self)

    def after_fork(self) -> None:
        """Begin again in a child; a client of the caller's does so by itself."""
        self._lock, self._ready = threading.Lock(), False
        if isinstance(self._uri, str):
            self._inherited, self._client = self._client, None  # kept: it would warn of being unclosed

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
            # Their words may hold the password.
            raise ConfigurationError(
                "uri: is none that MongoDB understands; give mongodb://user:password@host:port/database, and"
                " percent-encode what is special in user and password"
            ) from None

    @property
    def server(self) -> str:
        """Where the server is, without user and password."""
        client = self._client
        if client is None:
            return "?"
        known = sorted(client.topology_description.server_descriptions(), key=str)
        return ",".join(f"{host}:{port}" if port else host for host, port in known) or "?"

    def collection(self, suffix: str = "") -> Collection[Document]:
        """A collection, whether or not it is ready."""
        if self._client is None:
            self._client = self._connected()
        client, (database, name) = self._client, self._names
        concern = client.write_concern
        if concern.is_server_default:
            concern = WriteConcern("majority", wtimeout=round(self._timeout * 1000))
        return client[database].get_collection(name + suffix, CODEC, ReadPreference.PRIMARY, concern)

    @property
    def jobs(self) -> Collection[Document]:
        """Jobs; ready."""
        jobs = self.collection()
        if not self._ready:
            with self._lock:
                if not self._ready:
                    prepare(jobs, self.collection("_meta"))
                    self._ready = True
        return jobs

    @property
    def workers(self) -> Collection[Document]:
        """Workers and their leases. One a process: whole."""
        return self.collection("_workers")

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Raise errors of pymongo inside as children of PgjobqError, the original as their cause."""
        try:
            yield
        except (PyMongoError, BSONError) as error:
            if is_missing_index(error):
                self._ready = False
            raise translate(error, self.server) from error

    def now(self) -> datetime:
        """The server's time, in milliseconds: no job that was enqueued before is due after it."""
        return self._hello()["localTime"].replace(tzinfo=UTC)  # type: ignore[no-any-return]  # an answer is a dict

    def has_transactions(self) -> bool:
        """Whether it is a replica set or a sharded cluster."""
        hello = self._hello()
        return "setName" in hello or hello.get("msg") == "isdbgrid"

    def _hello(self) -> dict[str, Any]:
        return self.collection().database.client.admin.command("hello")

    def take_places(self, count: int) -> tuple[int, datetime]:
        """So many places in the order of enqueueing: the first; and the server's time.

        Places are microseconds, so that they grow even when a failover forgets some. Not waited for to be durable,
        for the same reason.
        """
        meta = self.collection("_meta").with_options(write_concern=WriteConcern(1))
        now = {"$multiply": [{"$toLong": "$$NOW"}, 1000]}
        change = [{"$set": {"last": {"$add": [{"$max": ["$last", now]}, count]}, "at": "$$NOW"}}]
        while True:
            _ = self.jobs  # ready: the document is there
            found = meta.find_one_and_update({"_id": META}, change, return_document=ReturnDocument.AFTER)
            if found is not None:
                return found["last"] - count + 1, found["at"]
            self._ready = False  # somebody dropped the database

    def close(self) -> None:
        """Close the client, if it is ours; the next use connects anew."""
        client = self._client
        if client is not None and isinstance(self._uri, str):
            client.close()
            self._client, self._ready = None, False


def _named(client: MongoClient[Any]) -> str | None:
    """The database that the URI names; admin is there to log in."""
    try:
        name = client.get_default_database().name
    except BadSettings:
        return None
    return None if name == "admin" else name


def milliseconds(seconds: float) -> int:
    """Rounded up."""
    return -(-timedelta(seconds=seconds) // timedelta(milliseconds=1))
