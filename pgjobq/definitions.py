"""Inspect a handler's function: its parameters, whether a call runs it, and where it was defined."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Container, Hashable
from contextlib import asynccontextmanager, contextmanager
from types import CodeType
from typing import Any

from pgjobq.errors import ConfigurationError, InvalidJob, PgjobqError, UnknownJobType

Function = Callable[..., Any]

_PLAIN = {type(None), bool, int, float, complex, str, bytes, frozenset}  # compared by value
_EMPTY = object()


def parameters_of(function: Function) -> dict[str, inspect.Parameter]:
    """Return its parameters. Raises ConfigurationError if Python cannot tell them or one is positional-only."""
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"function: {place_of(function)} has no signature; wrap it in a function that has one"
        ) from None
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise ConfigurationError(
                f"{place_of(function)}: parameter {name} is positional-only; make it a keyword parameter"
            )
    return parameters


def is_async(function: Function) -> bool:
    """Return whether a call returns a coroutine. Raises ConfigurationError if a call does not run the function."""
    innermost = unwrapped(function)
    if getattr(innermost, "__code__", None) in _context_managers():
        raise ConfigurationError(
            f"function: {place_of(function)} is a context manager, so calling it runs nothing; remove @contextmanager"
        )
    # Calling an object runs the __call__ of its type.
    bodies = (innermost, getattr(type(innermost), "__call__"))  # noqa: B004, B009  # the code of __call__ is inspected
    if any(inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body) for body in bodies):
        raise ConfigurationError(
            f"function: {place_of(function)} is a generator, so calling it runs nothing; remove the yield"
        )
    return any(inspect.iscoroutinefunction(body) for body in bodies)


def unwrapped(function: Function) -> Function:
    """Return the function inside partials and static methods."""
    while isinstance(function, functools.partial | staticmethod):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function


def place_of(function: Function) -> str:
    """Return its module and qualified name."""
    function = unwrapped(function)
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def not_a_handler(given: Any, handlers: Container[Any]) -> PgjobqError:
    """Return the error for an object that is not among the handlers, with what the caller most likely meant."""
    if not callable(given):
        if inspect.iscoroutine(given):
            given.close()  # otherwise Python warns that it was never awaited
        return InvalidJob(
            f"job: {type(given).__name__} is neither a handler nor the name of a type; if you have called the handler,"
            " pass the function and its arguments apart: enqueue(send_email, {'to': 'a@b.c'})",
            field="job",
        )

    def holds(function: Any) -> bool:
        return isinstance(function, Hashable) and function in handlers

    name = place_of(given)
    if isinstance(given, functools.partial) and holds(unwrapped(given)):
        return UnknownJobType(
            f"a partial of {name} is not a handler; pass the function itself, and the arguments as data, or register"
            " the partial under a type of its own: job(type=...)(partial)"
        )
    if holds(getattr(given, "__wrapped__", None)):
        return UnknownJobType(f"{name} wraps a handler and is not one; move @job above the other decorators")
    return UnknownJobType(f"{name} is not a handler; decorate it with @job, or enqueue by type")


class Definition:
    """Identifies the definition of a function, and the execution of its module that defined it.

    Two definitions are the same if they have the same module and qualified name, and one of these is true:
    - The module was executed again in between, because it was reloaded or imported again.
    - The function was typed again in an interactive session.
    - The code and the captured values are the same: defaults, closure variables, arguments of a partial, the object of
      a method.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        innermost = unwrapped(function)
        named = innermost if hasattr(innermost, "__qualname__") else type(innermost)
        self._name = (getattr(named, "__module__", None), named.__qualname__)
        module = sys.modules.get(str(self._name[0]))
        self._execution = getattr(module, "__spec__", None)  # each execution of a module has its own __spec__
        self._is_typed = hasattr(sys, "ps1") and named.__module__ == "__main__" and "<" not in named.__qualname__

    def is_same(self, other: Definition) -> bool:
        """Return whether this is the other definition, executed again."""
        if self._name != other._name:
            return False
        if self._execution is not other._execution or self._is_typed:
            return True
        return _same(self.function, other.function, set())


def location_of(function: Function) -> str:
    """Return the file and line of its definition, if it has code."""
    code = getattr(unwrapped(function), "__code__", None)
    return "an unknown line" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _same(one: Any, other: Any, seen: set[tuple[int, int]]) -> bool:
    """Return whether two values are identical, or functions with the same code and the same captured values."""
    if one is other or one is _EMPTY or other is _EMPTY or (id(one), id(other)) in seen:
        return True
    if type(one) is not type(other):
        return False
    if type(one) in _PLAIN:
        return bool(one == other)
    seen.add((id(one), id(other)))  # a closure may contain itself
    mine, its = _parts(one), _parts(other)
    return bool(mine) and len(mine) == len(its) and all(_same(*pair, seen) for pair in zip(mine, its, strict=True))


def _parts(value: Any) -> list[Any]:
    """Return the parts in which two values of this type must agree. Empty if only identical objects are the same."""
    if inspect.isfunction(value):
        cells = [_content_of(cell) for cell in value.__closure__ or ()]
        return [value.__code__.co_filename, value.__code__, value.__defaults__, value.__kwdefaults__, *cells]
    if inspect.iscode(value):
        return [value.co_firstlineno, value.co_code, value.co_names, value.co_freevars, value.co_consts]
    if inspect.ismethod(value):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, staticmethod):
        return [value.__func__]
    if type(value) in {tuple, list}:
        return [len(value), *value]
    if type(value) is dict:
        return [len(value), *value.keys(), *value.values()]
    return []


def _content_of(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell: the function refers to itself and is still being decorated
        return _EMPTY


@functools.cache
def _context_managers() -> tuple[CodeType, ...]:
    """Return the code objects of the wrappers that contextlib's decorators create."""

    def nothing() -> Any: ...

    return contextmanager(nothing).__code__, asynccontextmanager(nothing).__code__
