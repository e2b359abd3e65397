"""Turn the values that callers pass into those that the rest of pgjobq and JSON use."""

from __future__ import annotations

from datetime import date, time, timedelta
from enum import Enum
from typing import Any


def seconds_of(value: Any) -> Any:
    """Return a timedelta in seconds, and any other value unchanged."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def plain_value(value: Any) -> Any:
    """Return the string that JSON stores for a UUID, Decimal, datetime, date or time, and an Enum's value.

    Other values are returned unchanged.
    """
    if isinstance(value, Enum):
        return plain_value(value.value)
    if isinstance(value, date | time):
        return value.isoformat()
    # Imported here: an object of these classes exists only if its module was imported, and this is not the usual path.
    from decimal import Decimal
    from uuid import UUID

    return str(value) if isinstance(value, UUID | Decimal) else value
