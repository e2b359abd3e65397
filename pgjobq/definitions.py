"""What is known of a handler's function: its parameters, whether it runs when called, and which definition made it."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from types import CodeType
from typing import Any

from pgjobq.errors import ConfigurationError

Function = Callable[..., Any]

_PLAIN = {type(None), bool, int, float, complex, str, bytes, frozenset}  # compared by value
_EMPTY = object()


def parameters_of(function: Function) -> dict[str, inspect.Parameter]:
    """Its parameters; ConfigurationError when it does not tell them, or data could not be given by keyword."""
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"function: {place_of(function)} does not tell its parameters; wrap it in a function that does"
        ) from None
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise ConfigurationError(
                f"{place_of(function)}: parameter {name} is positional-only; data is given by keyword"
            )
    return parameters


def is_async(function: Function) -> bool:
    """Whether calling it makes a coroutine; ConfigurationError when calling it runs nothing at all."""
    innermost = unwrapped(function)
    if getattr(innermost, "__code__", None) in _context_managers():
        raise ConfigurationError(
            f"function: {place_of(function)} is a context manager, so calling it runs nothing; take @contextmanager off"
        )
    # A class is called by its type's __call__, an object by its class's.
    bodies = (innermost, getattr(type(innermost), "__call__"))  # noqa: B004, B009  # its body is wanted
    if any(inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body) for body in bodies):
        raise ConfigurationError(
            f"function: {place_of(function)} is a generator, so calling it runs nothing; take the yield out"
        )
    return any(inspect.iscoroutinefunction(body) for body in bodies)


def unwrapped(function: Function) -> Function:
    """The function inside partials and static methods."""
    while isinstance(function, functools.partial | staticmethod):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function


def place_of(function: Function) -> str:
    """Its module and qualified name."""
    function = unwrapped(function)
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


class Definition:
    """Where a function comes from: which definition, and which execution of its module.

    Two definitions are the same when module and qualified name are, and one of these holds: the module was executed
    again in between (reloaded, or imported afresh); the function was typed again in an interactive session; it is the
    same code with the same things captured, which are defaults, what a closure or a partial holds, a method's object.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        innermost = unwrapped(function)
        named = innermost if hasattr(innermost, "__qualname__") else type(innermost)
        self._name = (getattr(named, "__module__", None), named.__qualname__)
        module = sys.modules.get(str(self._name[0]))
        self._execution = getattr(module, "__spec__", None)  # each execution of a module has one of its own
        self._is_typed = hasattr(sys, "ps1") and named.__module__ == "__main__" and "<" not in named.__qualname__

    def is_same(self, other: Definition) -> bool:
        """Whether this is the other one, defined again."""
        if self._name != other._name:
            return False
        if self._execution is not other._execution or self._is_typed:
            return True
        return _same(self.function, other.function, set())


def location_of(function: Function) -> str:
    """The file and line of its definition, as far as it tells."""
    code = getattr(unwrapped(function), "__code__", None)
    return "an unknown line" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _same(one: Any, other: Any, seen: set[tuple[int, int]]) -> bool:
    """Whether two values are one, or functions of the same code with the same things captured."""
    if one is other or one is _EMPTY or other is _EMPTY or (id(one), id(other)) in seen:
        return True
    if type(one) is not type(other):
        return False
    if type(one) in _PLAIN:
        return bool(one == other)
    seen.add((id(one), id(other)))  # a closure may hold itself
    mine, its = _parts(one), _parts(other)
    return bool(mine) and len(mine) == len(its) and all(_same(*pair, seen) for pair in zip(mine, its, strict=True))


def _parts(value: Any) -> list[Any]:
    """What two values of this type must have in common to be the same; empty when they must be one object."""
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
    except ValueError:  # a function that its own closure holds, while it is being decorated
        return _EMPTY


@functools.cache
def _context_managers() -> tuple[CodeType, ...]:
    """The code of what contextlib's decorators make of any function."""

    def nothing() -> Any: ...

    return contextmanager(nothing).__code__, asynccontextmanager(nothing).__code__
