"""Results as the portable storages keep them: JSON text."""

from __future__ import annotations

import json
from typing import Any

from pgjobq.models import UnreadableData


def read_result(text: str | None) -> Any:
    """Parse a result. Return UnreadableData if Python cannot parse it, so that it does not hide the job."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        return UnreadableData(f"{type(error).__name__}: {error}")
