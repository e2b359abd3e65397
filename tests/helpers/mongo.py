"""What the tests of MongoStorage share."""

from __future__ import annotations

LEASE = 2.0  # seconds
