"""Shared helpers for the tests of DynamoDBStorage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config

LEASE = 2.0  # seconds
ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=5, read_timeout=20)


def connect(endpoint: str, config: Config | None = None) -> Any:
    return boto3.client("dynamodb", endpoint_url=endpoint, region_name="eu-west-1", config=config)


class Between:
    """Wraps a client. It records each call, and runs `before` and `after` around it; `after` may replace the response."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.before: Callable[[str, dict[str, Any]], Any] = lambda *_: None
        self.after: Callable[[str, dict[str, Any], Any], Any] = lambda *_: None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if name in {"meta", "exceptions", "get_waiter", "get_paginator", "close"}:
            return found

        def call(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            self.before(name, arguments)
            answer = found(**arguments)
            instead = self.after(name, arguments, answer)
            return answer if instead is None else instead

        return call

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]
