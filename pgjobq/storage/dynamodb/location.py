"""The address of DynamoDB, and the name of the table."""

from __future__ import annotations

import functools
import os
import threading
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import boto3
from botocore.config import Config

from pgjobq.checks import check_seconds
from pgjobq.errors import ConfigurationError

TRIES = 4  # attempts of a request if DynamoDB is busy or away; the client waits up to 1, 2 and 4 seconds between them
_FORM = "use dynamodb://REGION/TABLE, if necessary with ?endpoint=URL or ?profile=NAME"


@dataclass(frozen=True, kw_only=True)
class Location:
    """A table in a region or at an endpoint. client: the caller's own client for it."""

    table: str
    region: str | None = None
    endpoint: str | None = None
    profile: str | None = None
    client: Any = None
    timeout: float = 5.0  # seconds for a connection, and for an answer

    @classmethod
    def from_table_or_url(cls, table: str, **given: Any) -> Self:
        """Create a location from the name of a table or a URL, and from the other arguments."""
        if "://" in table:
            table, named = _read(table)
            given = {**named, **{name: value for name, value in given.items() if value is not None}}
        client = given.get("client")
        if client is not None and not hasattr(client, "transact_write_items"):
            raise ConfigurationError(
                f"client: {type(client).__name__} is not a DynamoDB client; use boto3.client('dynamodb')"
            )
        check_seconds("timeout", given.get("timeout", 1))
        return cls(table=table, **given)

    @property
    def server(self) -> str:
        """The endpoint without user and password, or the region."""
        endpoint = self.endpoint if self.client is None else str(self.client.meta.endpoint_url)
        if endpoint is not None:
            return urlsplit(endpoint).netloc.rpartition("@")[2] or endpoint
        return self.region or "the default region"

    def connect(self, at_once: int) -> Any:
        """Create a client for this many concurrent requests."""
        if self.client is not None:
            return self.client
        session, making = _session(self.profile, os.getpid())
        region = self.region or session.region_name
        if region is None and self.endpoint is not None:
            region = "us-east-1"  # of a server of one's own any will do, but requests are signed for one
        config = Config(
            connect_timeout=self.timeout,
            read_timeout=self.timeout,
            max_pool_connections=2 * at_once,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            tcp_keepalive=True,
            parameter_validation=False,  # a tenth of the time that a request takes here
        )
        with making:  # a session makes one client at a time
            return session.client("dynamodb", region_name=region, endpoint_url=self.endpoint, config=config)


@functools.cache
def _session(profile: str | None, _pid: int) -> tuple[Any, threading.Lock]:
    """One for all of a process: it has read what DynamoDB is, which takes a tenth of a second."""
    return boto3.Session(profile_name=profile), threading.Lock()


def _read(url: str) -> tuple[str, dict[str, str | None]]:
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ConfigurationError(f"dsn: this is not a DynamoDB URL; {_FORM}") from None
    if "@" in parts.netloc:
        raise ConfigurationError(f"dsn: a DynamoDB URL has no user and password, because boto3 finds them; {_FORM}")
    unknown = set(options) - {"endpoint", "profile"}
    if parts.scheme != "dynamodb" or unknown or parts.path.count("/") > 1:
        wrong = f"a DynamoDB URL has no option {min(unknown)!r}" if unknown else "this is not a DynamoDB URL"
        raise ConfigurationError(f"dsn: {wrong}; {_FORM}")
    named = {"region": parts.netloc or None, "endpoint": options.get("endpoint"), "profile": options.get("profile")}
    return parts.path.strip("/") or "jobs", named
