"""What jobs have reported, for the commands that show jobs."""

from __future__ import annotations

from typing import Any

from pgjobq.cli.text import in_a_line, in_json
from pgjobq.errors import Unsupported
from pgjobq.storage.base import BaseStorage


def progress_of(storage: BaseStorage, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Return what these jobs have reported, by id; nothing if the storage does not keep it."""
    try:
        return storage.progress(ids) if ids else {}
    except Unsupported:
        return {}


def share_of(progress: dict[str, Any] | None, *, whole: bool = False) -> str | None:
    """Return a report in a line: its share and its message; whole: also the rest, and when it was written."""
    if progress is None:
        return None
    parts = [f"{100 * progress['fraction']:.0f}%", progress["message"] or ""]
    if whole:
        parts += [in_json(progress["meta"]) if progress["meta"] else "", f"({progress['updated_at']})"]
    return in_a_line(" ".join(part for part in parts if part))
