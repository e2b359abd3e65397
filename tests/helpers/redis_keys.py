"""Shared helpers for the tests of RedisStorage."""

from __future__ import annotations

import secrets
from typing import Any


def fresh_prefix() -> str:
    return f"test-{secrets.token_hex(4)}"


def asleep(client: Any, prefix: str, queue: str = "") -> int:
    """Return how many workers of this queue are asleep."""
    return int(client.scard(f"{{{prefix}}}:asleep:{queue}"))
