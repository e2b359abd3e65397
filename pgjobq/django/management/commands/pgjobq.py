"""`manage.py pgjobq ...`: the command line, on the database of the project."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from pgjobq.cli import main
from pgjobq.django.conf import conninfo, current
from pgjobq.django.reloading import run_reloading
from pgjobq.errors import PgjobqError


class Command(BaseCommand):
    """Passes its arguments to the command line."""

    help = "Run a command of pgjobq, such as worker, check or stats, on the project's database."
    requires_system_checks: Any = ()  # a worker of one release may start while `migrate` of the next one runs

    def run_from_argv(self, argv: list[str]) -> None:
        """Run `pgjobq` with all arguments as they are, because click parses them."""
        try:
            conf = current()
            # The command line, and the processes that it starts, read these. --dsn and --schema take precedence.
            os.environ["PGJOBQ_DSN"], os.environ["PGJOBQ_SCHEMA"] = conninfo(conf.database), conf.schema
        except PgjobqError as error:
            sys.stderr.write(f"pgjobq: {error}\n")
            sys.exit(1)
        words = argv[2:]
        if words[:1] == ["worker"] and "--reload" in words:
            run_reloading([word for word in argv if word != "--reload"])
            return
        sys.argv = ["pgjobq", *words]
        main()

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Refuse call_command, whose options click would not see."""
        raise CommandError("run it from the command line: manage.py pgjobq ...; in Python, use pgjobq.django.queue")
