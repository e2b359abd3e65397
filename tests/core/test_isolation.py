"""The settings of isolated handlers: what is refused when they are registered."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest
from helpers import isolated

from pgjobq.errors import ConfigurationError
from pgjobq.handlers import Registry, job
from pgjobq.isolation import main_of


class Box:
    def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...

    def __call__(self) -> None: ...


def register(function: Callable[..., Any] = isolated.spin, **settings: Any) -> Registry:
    registry = Registry()
    job(registry=registry, type="t", **settings)(function)
    return registry


def test_settings_are_kept() -> None:
    handler = register(isolated.spin_async, isolate="process", kill_grace=1.5, memory_limit=2**30).get("t")
    assert (handler.isolate, handler.kill_grace, handler.memory_limit) == ("process", 1.5, 2**30)
    assert handler.is_async
    assert not handler.on_loop
    assert register(isolated.spin_async).get("t").on_loop
    assert register(Box.static, isolate="process").get("t").isolate == "process"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"isolate": "thread"}, "isolate: 'thread' is not a choice; use 'process'"),
        ({"isolate": True}, "isolate: True is not a choice"),
        ({"kill_grace": 1}, "kill_grace: has no meaning without isolate='process'"),
        ({"memory_limit": 1}, "memory_limit: has no meaning without isolate='process'"),
        ({"isolate": "process", "kill_grace": -1}, "kill_grace: -1 is not allowed; use seconds"),
        ({"isolate": "process", "kill_grace": float("nan")}, "kill_grace: nan is not allowed"),
        ({"isolate": "process", "kill_grace": "5"}, "kill_grace: '5' is not allowed"),
        ({"isolate": "process", "memory_limit": 0}, "memory_limit: 0 is not allowed; use a number of bytes"),
        ({"isolate": "process", "memory_limit": 1e9}, "memory_limit: 1000000000.0 is not allowed"),
        ({"isolate": "process", "memory_limit": 2**63}, "memory_limit: 9223372036854775808 is not allowed"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=None) as raised:
        register(**settings)
    assert says in str(raised.value)


def test_a_memory_limit_that_is_not_enforced_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigurationError, match="memory_limit: darwin does not enforce such a limit"):
        register(isolate="process", memory_limit=2**30)


def local() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


@pytest.mark.parametrize(
    "function",
    [lambda: None, local(), Box().method, Box(), functools.partial(isolated.leave, status=1)],
    ids=["lambda", "local", "method", "object", "partial"],
)
def test_a_function_that_no_process_can_import_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="cannot import it; define it with def at the top level of a module"):
        register(function, isolate="process")


def test_a_function_of_an_interactive_session_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(isolated.spin, "__module__", "__main__")
    with pytest.raises(ConfigurationError, match="is defined in an interactive session"):
        register(isolate="process")
    assert main_of(sys.modules["__main__"]) is None
