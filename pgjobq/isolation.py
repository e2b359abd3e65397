"""Handlers that run in processes of their own: the checks of their settings, and how a process imports them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from pgjobq.definitions import place_of
from pgjobq.errors import MAX_DELAY, ConfigurationError

KILL_GRACE = 5.0  # seconds from SIGTERM to SIGKILL, unless the handler has a kill_grace

_is_child = False


def check_isolation(function: Callable[..., Any], isolate: object, kill_grace: object, memory_limit: object) -> None:
    """Raise ConfigurationError for settings that are not allowed, or a function that a process cannot import."""
    if isolate is None:
        for name, value in (("kill_grace", kill_grace), ("memory_limit", memory_limit)):
            if value is not None:
                raise ConfigurationError(f"{name}: has no meaning without isolate='process'; pass that too")
        return
    if isolate != "process":
        raise ConfigurationError(f"isolate: {isolate!r} is not a choice; use 'process', or leave it out")
    number = isinstance(kill_grace, int | float) and not isinstance(kill_grace, bool)
    if kill_grace is not None and not (number and 0 <= kill_grace <= MAX_DELAY):  # type: ignore[operator]  # number: it is a number
        raise ConfigurationError(f"kill_grace: {kill_grace!r} is not allowed; use seconds, 0 or more")
    if memory_limit is not None:
        _check_memory_limit(memory_limit)
    _check_name(function)


def _check_memory_limit(memory_limit: object) -> None:
    if not isinstance(memory_limit, int) or isinstance(memory_limit, bool) or not 0 < memory_limit < 2**63:
        raise ConfigurationError(f"memory_limit: {memory_limit!r} is not allowed; use a number of bytes above 0")
    if sys.platform != "linux":  # other systems accept the limit and do not enforce it
        raise ConfigurationError(f"memory_limit: {sys.platform} does not enforce such a limit; leave it out")


def _check_name(function: Callable[..., Any]) -> None:
    remedy = "define it with def at the top level of a module"
    if not inspect.isfunction(function):
        raise ConfigurationError(
            f"isolate: {place_of(function)} is not a plain function, so its process cannot import it; {remedy}"
        )
    if "<" in function.__qualname__:  # <locals>, <lambda>
        raise ConfigurationError(
            f"isolate: {place_of(function)} has no name in its module, so its process cannot import it; {remedy},"
            " and use functools.wraps in decorators"
        )
    main = sys.modules.get("__main__")
    if function.__module__ == "__main__" and main_of(main) is None:
        raise ConfigurationError(
            f"isolate: {place_of(function)} is defined in an interactive session, so its process cannot import it;"
            f" {remedy}"
        )


def main_of(main: Any) -> tuple[str, str] | None:
    """Return ("name", module) or ("path", file): how another process imports the main module. None if it cannot."""
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return "name", spec.name
    path = getattr(main, "__file__", None)
    return None if path is None else ("path", path)


def become_child() -> None:
    """Note that this process runs one isolated job."""
    global _is_child  # noqa: PLW0603  # a process becomes one once
    _is_child = True


def refuse_in_child(what: str) -> None:
    """Raise ConfigurationError in the process of an isolated job: its module imports what a program would start."""
    if _is_child:
        raise ConfigurationError(
            f"{what}: this is the process of an isolated job, which has imported the program; start a Worker under"
            " `if __name__ == '__main__':`"
        )
