"""Shared constants for the tests of MongoStorage."""

from __future__ import annotations

LEASE = 2.0  # seconds
