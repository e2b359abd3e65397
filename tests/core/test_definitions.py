"""Two functions may share a type only if the second is the same definition, executed again."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgjobq import ConfigurationError, Registry, job

MODULE = """
import functools
from pgjobq import job

def twice(function):
    @functools.wraps(function)
    def wrapper():
        function()
        function()
    return wrapper

def make(n):
    def closure():
        return n
    return closure

class Mailer:
    def send(self):
        pass
    def __call__(self):
        pass

def register(registry):
    '''comment'''
    @job(registry=registry)
    def plain():
        return {version}

    job(type="wrapped", registry=registry)(twice(plain))
    job(type="lambda", registry=registry)(lambda: {version})
    job(type="closure", registry=registry)(make({version}))
    job(type="method", registry=registry)(Mailer().send)
    job(type="object", registry=registry)(Mailer())
    job(type="partial", registry=registry)(functools.partial(make, {version}))
"""


class Source:
    """A file with a module of handlers that a test can change and reload."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "handlers_to_reload.py"
        self.write(1)

    def write(self, version: int, above: str = "") -> None:
        self.path.write_text(above + MODULE.replace("{version}", str(version)))

    def load(self) -> Any:
        importlib.invalidate_caches()
        return importlib.import_module(self.path.stem)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the modification time is too coarse for these changes
    yield Source(tmp_path)
    sys.modules.pop("handlers_to_reload", None)


@pytest.mark.parametrize("how", ["reloaded", "reloaded after a change", "imported afresh"])
def test_module_that_is_executed_again_replaces_its_own_handlers(source: Source, how: str) -> None:
    registry = Registry()
    module = source.load()
    module.register(registry)
    before = {handler.type: handler.function for handler in registry}
    if how == "imported afresh":
        del sys.modules[module.__name__]
        module = source.load()
    else:
        if how == "reloaded after a change":
            source.write(2, above="# A line more.\n")
        importlib.reload(module)
    module.register(registry)
    after = {handler.type: handler.function for handler in registry}
    assert before.keys() == after.keys()
    for name, function in after.items():
        assert function is not before[name]
        assert registry.for_function(function).type == name


def test_function_without_captured_values_can_be_defined_again(source: Source) -> None:
    """Tests call an application factory again and again."""
    registry = Registry()

    def load(version: int) -> Callable[[], None]:
        @job(type="mail", priority=version, registry=registry)
        def send_email() -> None: ...

        return send_email

    old, new = load(1), load(2)
    assert old is not new
    assert registry.get("mail").function is new
    assert registry.for_function(new).priority == 2


def closure(n: Any) -> Callable[[], Any]:
    def inner() -> Any:
        return n

    return inner


def with_default(n: int) -> Callable[..., Any]:
    def inner(number: int = n) -> int:
        return number

    return inner


def with_keyword(n: int) -> Callable[..., Any]:
    def inner(*, number: int = n) -> int:
        return number

    return inner


def wrapped(function: Callable[[], Any]) -> Callable[[], Any]:
    def wrapper() -> Any:
        return function()

    return wrapper


def one() -> None: ...
def other() -> None: ...


class Mailer:
    def send(self) -> None: ...

    @classmethod
    def send_all(cls) -> None: ...

    def __call__(self) -> None: ...


class Quiet(Mailer):
    def __repr__(self) -> str:
        return "the same for all"


def named_alike() -> tuple[Callable[[], int], Callable[[], int]]:
    def mail() -> int:
        return 1

    first = mail

    def mail() -> int:  # type: ignore[no-redef]  # the mistake that the test is about
        return 2

    return first, mail


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: 1, lambda: 2),
        (closure(1), closure(2)),
        (closure([1]), closure([2])),
        (closure(one), closure(other)),
        (closure(closure(1)), closure(closure(2))),
        (with_default(1), with_default(2)),
        (with_keyword(1), with_keyword(2)),
        (wrapped(one), wrapped(other)),
        (Mailer().send, Mailer().send),
        (Mailer(), Mailer()),
        (Quiet(), Quiet()),
        (functools.partial(closure, 1), functools.partial(closure, 2)),
        (functools.partial(closure, n=1), functools.partial(closure, n=2)),
        named_alike(),
    ],
)
def test_another_function_of_the_same_name_is_refused(first: Any, second: Any) -> None:
    registry = Registry()
    job(type="mail", registry=registry)(first)
    with pytest.raises(ConfigurationError) as caught:
        job(type="mail", registry=registry)(second)
    assert "type 'mail' already has a handler: " in str(caught.value)
    assert "under another type, with @job(type=...)" in str(caught.value)
    assert registry.get("mail").function is first


def test_refusal_gives_the_lines_of_both_functions() -> None:
    registry = Registry()
    first, second = named_alike()
    job(type="mail", registry=registry)(first)
    with pytest.raises(
        ConfigurationError, match=r"test_definitions\.py:(\d+); .*test_definitions\.py:(\d+), which is"
    ) as caught:
        job(type="mail", registry=registry)(second)
    assert first.__code__.co_firstlineno != second.__code__.co_firstlineno
    assert str(first.__code__.co_firstlineno) in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (closure(1), closure(1)),
        (closure((1, "a", None)), closure((1, "a", None))),
        (closure({"a": [one]}), closure({"a": [one]})),
        (wrapped(closure(1)), wrapped(closure(1))),
        (Mailer.send_all, Mailer.send_all),
        (functools.partial(closure, n=1), functools.partial(closure, n=1)),
    ],
)
def test_same_function_with_equal_values_replaces_itself(first: Any, second: Any) -> None:
    registry = Registry()
    for function in (first, second):
        job(type="mail", registry=registry)(function)
    assert registry.get("mail").function is second


def test_closure_that_holds_itself_can_be_registered_again() -> None:
    registry = Registry()

    def make() -> None:
        @job(registry=registry)
        def again(n: int) -> None:
            if n:
                again(n - 1)

    make()
    make()
    assert len(registry) == 1


def test_function_typed_again_in_a_session_replaces_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    session: dict[str, Any] = {"__name__": "__main__", "job": job, "registry": registry}
    lines = "@job(registry=registry)\ndef mail():\n    return {}\n"
    exec(compile(lines.format(1), "<stdin>", "exec"), session)  # noqa: S102  # as an interactive session does
    with pytest.raises(ConfigurationError):
        exec(compile(lines.format(2), "<stdin>", "exec"), session)  # noqa: S102
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    exec(compile(lines.format(2), "<stdin>", "exec"), session)  # noqa: S102
    assert registry.get("mail").function is session["mail"]
