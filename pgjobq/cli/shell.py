"""Read what the shell passes, and report what is wrong with it in the shell's words."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from typing import Any

import click

from pgjobq.errors import InvalidJob

MOMENT = "2030-01-31T09:00+01:00"


def in_shells_words(message: str, commands: click.Group) -> str:
    """Return the message with the name of an argument, with which it begins, replaced by that of its option."""
    found = re.match(r"([a-z_-]+): ", message)
    command = commands.commands.get(next(iter(sys.argv[1:]), ""))
    if isinstance(command, click.Group):
        command = command.commands.get(next(iter(sys.argv[2:]), ""))
    if found is None or command is None:
        return message
    names = {str(option.name): option.opts[-1] for option in command.params if isinstance(option, click.Option)}
    option = names.get(found[1].replace("-", "_"))
    # A DSN may come from the environment too.
    return message if option in {None, "--dsn"} else f"{option}: {message[found.end() :]}"


def moment(option: str, text: str | None) -> datetime | None:
    """Parse a time with its offset from UTC. Raises InvalidJob with the name of the option."""
    if text is None:
        return None
    field = option.strip("-").replace("-", "_")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidJob(f"{option}: {text!r} is not a time; use a time such as {MOMENT}", field=field) from None
    if found.utcoffset() is None:
        example = f"{found.isoformat(timespec='minutes')}+01:00"
        raise InvalidJob(
            f"{option}: {text!r} has no offset from UTC; add one, as in {example}, or Z for UTC", field=field
        )
    return found


def data_of(text: str, field: str = "data") -> dict[str, Any]:
    """Parse a job's data. Raises InvalidJob with the name of the field, which may be an option."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJob(f"{field}: {error}; use a JSON object in single quotes", field="data") from None
    if not isinstance(data, dict):
        raise InvalidJob(
            f"{field}: {text[:40]!r} is no JSON object; use one whose keys are the handler's arguments, as in"
            """ '{"to": "a@b.c"}'""",
            field="data",
        )
    return data
