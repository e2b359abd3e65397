"""The command line. Drivers are imported inside the commands, so that help is quick."""

from __future__ import annotations

import sys

from pgjobq.cli import admin, jobs, run, transfer
from pgjobq.cli.common import EXIT_ERROR, app, fail
from pgjobq.errors import PgjobqError

__all__ = ["admin", "app", "jobs", "main", "run", "transfer"]


def main() -> None:
    """The command `pgjobq`. Exit status: 0 done, 1 not done, 2 wrong usage, 3 no such job."""
    try:
        app()
    except PgjobqError as error:
        fail(str(error))
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
