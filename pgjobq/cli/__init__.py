"""The command line. The commands import drivers only when they run, which keeps --help fast."""

from __future__ import annotations

import io
import sys
from importlib import import_module

import click

from pgjobq.cli.common import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, app, fail
from pgjobq.cli.shell import in_shells_words
from pgjobq.errors import ConfigurationError, InvalidJob, PgjobqError

__all__ = ["load", "main"]

MODULES = ("admin", "jobs", "operating", "pausing", "run", "schedules", "transfer")


def load(modules: tuple[str, ...] = MODULES) -> click.Group:
    """Return the command line with the commands of these modules."""
    for name in modules:
        import_module(f"pgjobq.cli.{name}")
    return app


def main() -> None:
    """Run the command `pgjobq`. Exit status: 0 success, 1 error, 2 wrong usage, 3 no such job, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack a character
    # Supervisors and autoscalers start workers; a worker starts faster without the other commands.
    try:
        commands = load(("run",) if sys.argv[1:2] == ["worker"] else MODULES)
        _run(commands)
    except KeyboardInterrupt:  # outside of click
        fail("interrupted")
        sys.exit(EXIT_INTERRUPTED)


def _run(commands: click.Group) -> None:
    try:
        commands.main(prog_name="pgjobq", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (InvalidJob, ConfigurationError) as error:
        fail(in_shells_words(str(error), commands))
        sys.exit(EXIT_USAGE)
    except PgjobqError as error:
        fail(str(error))
        sys.exit(EXIT_ERROR)
    except click.Abort as abort:
        if isinstance(abort.__cause__, KeyboardInterrupt):
            fail("interrupted")
        sys.exit(EXIT_INTERRUPTED)
