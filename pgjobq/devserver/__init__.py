"""Run a private PostgreSQL server for the demo, development and tests."""

from __future__ import annotations

from pgjobq.devserver.folder import DevServerRunning, temporary_root
from pgjobq.devserver.programs import DevServerError, die_with_parent, find_bindir
from pgjobq.devserver.server import DevServer, default_folder

__all__ = [
    "DevServer",
    "DevServerError",
    "DevServerRunning",
    "default_folder",
    "die_with_parent",
    "find_bindir",
    "temporary_root",
]
