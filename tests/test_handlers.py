"""Handlers, their arguments, and backoff."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgjobq import Backoff, ConfigurationError, Job, Registry, UnknownJobType, job
from pgjobq.backoff import constant
from pgjobq.errors import BadArguments
from pgjobq.handlers import Handler


def handler_for(function: Callable[..., Any]) -> Handler:
    return Handler(type="t", function=function)


def arguments(function: Callable[..., Any], data: dict[str, Any]) -> dict[str, Any]:
    return handler_for(function).arguments(Job(id="j", type="t", data=data))


def test_decorator_returns_the_function_and_registers_it() -> None:
    registry = Registry()

    @job(registry=registry, type="mail", queue="q", priority=9, max_retries=1, timeout=5)
    def send(to: str) -> str:
        return to

    assert send("x") == "x"
    found = registry.get("mail")
    assert found is registry.of(send)
    assert (found.queue, found.priority, found.max_retries, found.timeout) == ("q", 9, 1, 5)
    with pytest.raises(UnknownJobType, match=r"'send'; registered: mail"):
        registry.get("send")
    with pytest.raises(UnknownJobType, match="decorate it with @job"):
        registry.of(print)


def test_two_functions_of_one_name_are_told_apart() -> None:
    registry = Registry()

    def first() -> None: ...

    def second() -> None: ...

    job(registry=registry, type="same")(first)
    job(registry=registry, type="same")(first)  # a module reloaded
    with pytest.raises(ConfigurationError, match=r"first.*second"):
        job(registry=registry, type="same")(second)


def test_arguments_fit() -> None:
    def named(a: int, b: int = 2, *, c: int = 3) -> None: ...

    def whole(data: dict[str, Any]) -> None: ...

    def open_ended(a: int, **rest: int) -> None: ...

    def data_and_more(data: int, other: int) -> None: ...

    def with_job(job: Job, a: int) -> None: ...

    assert arguments(named, {"a": 1, "c": 4}) == {"a": 1, "c": 4}
    assert arguments(whole, {"x": 1}) == {"data": {"x": 1}}
    assert arguments(open_ended, {"a": 1, "z": 9}) == {"a": 1, "z": 9}
    assert arguments(data_and_more, {"data": 1, "other": 2}) == {"data": 1, "other": 2}
    assert arguments(with_job, {"a": 1})["job"].id == "j"
    for function, data, expected in [
        (named, {}, r"missing: a"),
        (named, {"a": 1, "d": 1}, r"unexpected: d"),
        (lambda: None, {"x": 1}, r"unexpected: x"),
        (open_ended, {"z": 1}, r"missing: a"),
    ]:
        with pytest.raises(BadArguments, match=expected):
            arguments(function, data)  # type: ignore[arg-type]  # a list of mixed functions


def test_colour_is_seen_through_partials_and_objects() -> None:
    async def coroutine(a: int) -> None: ...

    class Callable_:
        async def __call__(self) -> None: ...

    assert handler_for(functools.partial(coroutine, a=1)).is_async
    assert handler_for(Callable_()).is_async
    assert not handler_for(lambda: None).is_async


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("type", {"type": ""}),
        ("queue", {"queue": "x" * 300}),
        ("priority", {"priority": 2**31}),
        ("max_retries", {"max_retries": -1}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": float("inf")}),
        ("backoff", {"backoff": 5}),
        ("function", {"function": 5}),
    ],
)
def test_bad_settings_are_named(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=field):
        Handler(**{"type": "t", "function": lambda: None, **options})


def test_positional_only_parameters_cannot_be_given() -> None:
    def positional(a: int, /) -> None: ...

    with pytest.raises(ConfigurationError, match="parameter a is positional-only"):
        handler_for(positional)


@given(
    st.integers(1, 10_000), st.floats(0, 100), st.floats(1, 10), st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 0.9999)
)
def test_backoff_stays_within_its_bounds(attempt: int, base: float, factor: float, cap: float, jitter: float, dice: float) -> None:
    delay = Backoff(base, factor, cap, jitter)(attempt, lambda: dice)
    assert 0 <= delay <= cap
    plain = Backoff(base, factor, cap, 0)(attempt)
    assert delay <= plain * (1 + jitter) + 1e-6
    assert delay >= plain * (1 - jitter) - 1e-6


def test_backoff_doubles_to_its_cap() -> None:
    assert [Backoff(jitter=0)(n) for n in (1, 2, 3, 4, 13, 10_000)] == [1, 2, 4, 8, 3600, 3600]
    assert [constant(7)(n) for n in (1, 5)] == [7, 7]


@pytest.mark.parametrize("options", [{"base": -1}, {"factor": 0.5}, {"cap": float("nan")}, {"jitter": 2}])
def test_bad_backoff(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Backoff(**options)
