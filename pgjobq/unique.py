"""Unique keys: the checks of what a caller passes, and keys that are formatted from a job's data."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from pgjobq.checks import check_name
from pgjobq.errors import MAX_DELAY, ConfigurationError, InvalidJob
from pgjobq.plain import plain_value

MAX_KEY = 255  # characters
UNIQUE_WHILE = ("unfinished", "pending")
ON_CONFLICT = ("keep", "replace", "debounce", "error")
# The options that a key can have. They mean nothing without one.
OPTIONS = ("unique_while", "unique_for", "on_conflict", "debounce_ceiling")


def check_unique(key: str | None, options: Mapping[str, Any], *, delayed: bool, delay: float | None) -> None:
    """Raise InvalidJob if a job may not have this key or these OPTIONS, of which None is not given.

    delayed: the job has an execute_at or a delay.
    """
    given = [name for name in OPTIONS if options[name] is not None]
    if key is not None:
        check_name("unique_key", key, "a key, or leave it out", MAX_KEY)
    elif given:
        raise InvalidJob(f"{given[0]}: has no meaning without unique_key; pass a key too", field=given[0])
    if not given:
        return
    _check_choice("unique_while", options["unique_while"], UNIQUE_WHILE)
    _check_choice("on_conflict", options["on_conflict"], ON_CONFLICT)
    _check_seconds("unique_for", options["unique_for"])
    ceiling = options["debounce_ceiling"]
    _check_seconds("debounce_ceiling", ceiling)
    if options["on_conflict"] != "debounce":
        if ceiling is not None:
            message = "debounce_ceiling: has no meaning without on_conflict='debounce'; pass that too, or leave it out"
            raise InvalidJob(message, field="debounce_ceiling")
    elif not delayed:
        raise InvalidJob("delay: debounce needs it; pass the seconds to wait for another call", field="delay")
    elif ceiling is not None and delay is not None and ceiling < delay:
        raise InvalidJob(
            f"debounce_ceiling: {ceiling!r} is shorter than the delay of {delay!r}; use as many seconds or more",
            field="debounce_ceiling",
        )


def check_template(template: object, parameters: frozenset[str] | None, options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError unless the template, such as 'doc:{doc_id}', names keys of data; None is no template.

    parameters: the keys that data can have; None if any. options: the OPTIONS of its key.
    """
    if template is None:
        for name in (name for name in OPTIONS if options[name] is not None):
            raise ConfigurationError(f"{name}: has no meaning without unique; pass that too")
        return
    try:
        check_unique("key", options, delayed=True, delay=None)
    except InvalidJob as error:
        raise ConfigurationError(str(error)) from None
    if not isinstance(template, str):
        raise ConfigurationError(f"unique: {template!r} is not a text; use one such as 'doc:{{doc_id}}'")
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ConfigurationError(f"unique: {template!r} is not a format: {error}") from None
    for name in names:
        first = name.split(".")[0].split("[")[0]
        if not first or first.isdecimal():
            raise ConfigurationError(
                f"unique: {template!r} has a field without a name; use one such as 'doc:{{doc_id}}'"
            )
        if parameters is not None and first not in parameters:
            raise ConfigurationError(f"unique: {template!r} names {first!r}, which is not a parameter of the handler")


def key_from(template: str, data: Mapping[str, Any], job_type: str) -> str:
    """The key that a template gives with this data; InvalidJob if the data lacks a field."""
    try:
        return template.format_map({name: plain_value(value) for name, value in data.items()})
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        lacks = f"data lacks {error}" if isinstance(error, KeyError) else f"the data does not fit it ({error})"
        raise InvalidJob(
            f"data: the unique key of {job_type!r} is {template!r}, and {lacks}; add it, or pass a unique_key",
            field="data",
        ) from None


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise InvalidJob(f"{name}: {value!r} is not a choice; use {' or '.join(choices)}", field=name)


def _check_seconds(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value <= MAX_DELAY):  # type: ignore[operator]  # number: it is a number
        raise InvalidJob(f"{name}: {value!r} is not allowed; use seconds above 0, up to {MAX_DELAY:.0f}", field=name)
