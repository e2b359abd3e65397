"""Handlers: how functions are registered, and how a job's data becomes their arguments."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, assert_type

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobq.backoff import Backoff, constant
from pgjobq.errors import BadArguments, ConfigurationError, UnknownJobType
from pgjobq.handlers import Handler, Registry, default_registry, job
from pgjobq.models import Job


def a_job(**data: Any) -> Job:
    return Job(id="1", type="t", data=data)


def a_handler(function: Callable[..., Any], **settings: Any) -> Handler:
    return Handler(type="t", function=function, **settings)


# Registering


def test_decorator_returns_the_function_itself_with_its_type() -> None:
    registry = Registry()

    def plain(to: str, times: int = 1) -> list[str]:
        return [to] * times

    async def later(to: str) -> int:
        return len(to)

    decorated = job(registry=registry)(plain)
    named = job(type="later", registry=registry)(later)

    assert decorated is plain
    assert named is later
    # mypy sees the original types, not Any.
    assert_type(decorated("a", times=2), list[str])
    assert decorated("a", times=2) == ["a", "a"]


def test_bare_decorator_uses_the_default_registry() -> None:
    @job
    def test_handlers_bare(to: str) -> str:
        return to

    assert_type(test_handlers_bare("a"), str)
    handler = default_registry.get("test_handlers_bare")
    assert default_registry.for_function(test_handlers_bare) is handler
    assert handler.function is test_handlers_bare


def test_type_is_the_functions_name_and_settings_have_defaults() -> None:
    registry = Registry()

    @job(registry=registry)
    def send_email() -> None: ...

    handler = registry.get("send_email")
    assert (handler.queue, handler.priority, handler.max_retries, handler.timeout) == ("default", 5, 3, None)
    assert handler.backoff == Backoff()


def test_settings_are_stored() -> None:
    registry = Registry()
    pause = constant(3)

    @job(type="mail", queue="slow", priority=-7, max_retries=0, backoff=pause, timeout=1.5, registry=registry)
    def send_email() -> None: ...

    handler = registry.for_function(send_email)
    assert (handler.type, handler.queue, handler.priority, handler.max_retries) == ("mail", "slow", -7, 0)
    assert (handler.backoff, handler.timeout) == (pause, 1.5)


def test_registry_lists_its_handlers() -> None:
    registry = Registry()
    assert len(registry) == 0

    for name in ("one", "two"):
        registry.register(Handler(type=name, function=functools.partial(print, name)))

    assert [handler.type for handler in registry] == ["one", "two"]
    assert len(registry) == 2
    assert "one" in registry
    assert "three" not in registry


def test_error_for_an_unknown_type_lists_the_registered_types() -> None:
    registry = Registry()
    with pytest.raises(UnknownJobType, match="'x'; registered: none"):
        registry.get("x")

    registry.register(a_handler(lambda: None))
    with pytest.raises(UnknownJobType, match="no handler for jobs of type 'x'; registered: t"):
        registry.get("x")


def test_error_for_a_function_that_is_not_a_handler_says_how_to_register_it() -> None:
    with pytest.raises(UnknownJobType, match=r"a_job is not a handler; decorate it with @job, or enqueue by type"):
        Registry().for_function(a_job)


def test_second_function_for_a_type_is_refused_with_both_names() -> None:
    registry = Registry()

    def first() -> None: ...
    def second() -> None: ...

    job(type="mail", registry=registry)(first)
    with pytest.raises(ConfigurationError) as caught:
        job(type="mail", registry=registry)(second)

    assert f"{__name__}.test_second_function_for_a_type_is_refused_with_both_names.<locals>.first" in str(caught.value)
    assert "<locals>.second under another type, with @job(type=...)" in str(caught.value)
    assert registry.get("mail").function is first
    with pytest.raises(UnknownJobType):
        registry.for_function(second)


def nothing() -> None: ...


def positional_only(to: str, /, subject: str) -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Unhashable:
    __hash__ = None  # type: ignore[assignment]  # this makes a class unhashable

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("mail", r"^function: 'mail' is not callable; decorate a function with @job or @job\(type=\.\.\.\)"),
        (None, "^function: None is not callable"),
        (positional_only, r"positional_only: parameter to is positional-only; make it a keyword parameter"),
        (functools.partial(positional_only), "parameter to is positional-only"),
        (generator, "generator is a generator, so calling it runs nothing; remove the yield"),
        (async_generator, "async_generator is a generator"),
        (functools.partial(generator), "generator is a generator"),
        (contextlib.contextmanager(generator), "generator is a context manager, so calling it runs nothing"),
        (contextlib.asynccontextmanager(async_generator), "async_generator is a context manager"),
        (staticmethod(generator), "generator is a generator"),
        (dict, "has no signature; wrap it in a function that has one"),
    ],
)
def test_unsuitable_function_is_refused_as_a_handler(function: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        a_handler(function)


def test_unhashable_callable_is_refused_and_not_registered() -> None:
    registry = Registry()

    with pytest.raises(ConfigurationError, match=r"Unhashable object .* is not hashable"):
        registry.register(a_handler(Unhashable()))

    assert len(registry) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": ""}, "type: has 0 characters; use a name for the type of job"),
        ({"type": "x" * 256}, "type: has 256 characters"),
        ({"type": "a\0"}, "type: contains a NUL"),
        ({"type": 5}, "type: 5 is not a string"),
        ({"queue": ""}, "queue: has 0 characters"),
        ({"queue": "x" * 10_000}, "queue: has 10000 characters"),
        ({"queue": None}, "queue: None is not a string"),
        ({"priority": 2**31}, "priority: 2147483648 is not allowed"),
        ({"priority": True}, "priority: True is not allowed"),
        ({"max_retries": -1}, "max_retries: -1 is not allowed"),
        ({"max_retries": 1.0}, "max_retries: 1.0 is not allowed"),
        ({"backoff": 5}, r"backoff: 5 is not callable; use Backoff\(...\) or a function"),
        ({"timeout": 0}, "timeout: 0 is not allowed; use seconds above 0, or None"),
        ({"timeout": -1.5}, "timeout: -1.5 is not allowed"),
        ({"timeout": math.inf}, "timeout: inf is not allowed"),
        ({"timeout": math.nan}, "timeout: nan is not allowed"),
        ({"timeout": "60"}, "timeout: '60' is not allowed"),
        ({"timeout": True}, "timeout: True is not allowed"),
    ],
)
def test_invalid_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    registry = Registry()

    with pytest.raises(ConfigurationError, match=message):
        job(**settings, registry=registry)(nothing)

    assert len(registry) == 0


def test_callable_without_a_name_needs_a_type() -> None:
    registry = Registry()

    with pytest.raises(ConfigurationError, match="type: has 0 characters; use a name for the type of job"):
        job(registry=registry)(functools.partial(nothing))
    job(type="nothing", registry=registry)(functools.partial(nothing))

    assert "nothing" in registry


# Sync and async handlers


async def coroutine(to: str, subject: str = "hi") -> None: ...


class AsyncObject:
    async def __call__(self) -> None: ...

    async def method(self) -> None: ...


class SyncObject:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (coroutine, True),
        (functools.partial(coroutine, subject="x"), True),
        (functools.partial(functools.partial(coroutine), subject="x"), True),
        (AsyncObject(), True),
        (functools.partial(AsyncObject()), True),
        (AsyncObject().method, True),
        (staticmethod(coroutine), True),
        (nothing, False),
        (functools.partial(nothing), False),
        (SyncObject(), False),
        (AsyncObject, False),  # a call of the class returns an instance, not a coroutine
    ],
)
def test_handler_knows_whether_it_is_async(function: Callable[..., Any], is_async: bool) -> None:
    assert a_handler(function).is_async is is_async


# Data and parameters


def whole(data: dict[str, Any]) -> None: ...
def whole_with_job(job: Job, data: dict[str, Any]) -> None: ...
def whole_by_default(data: dict[str, Any] | None = None) -> None: ...
def data_among_others(data: str, to: str) -> None: ...
def data_and_rest(data: str, **rest: Any) -> None: ...
def keys(to: str, subject: str = "hi") -> None: ...
def keyword_only(*, to: str, subject: str = "hi") -> None: ...
def with_job(job: Job, to: str) -> None: ...
def with_job_last(to: str, *, job: Job | None = None) -> None: ...
def only_job(job: Job) -> None: ...
def anything(**data: Any) -> None: ...
def job_and_anything(job: Job, **rest: Any) -> None: ...
def anything_called_job(**job: Any) -> None: ...
def with_args(to: str, *args: Any) -> None: ...


JOB = object()  # the placeholder for the job in the expected arguments


@pytest.mark.parametrize(
    ("function", "data", "expected"),
    [
        (nothing, {}, {}),
        (whole, {"a": 1}, {"data": {"a": 1}}),
        (whole, {}, {"data": {}}),
        (whole_with_job, {"job": 1}, {"data": {"job": 1}, "job": JOB}),
        (whole_by_default, {"a": 1}, {"data": {"a": 1}}),
        (data_among_others, {"data": "x", "to": "y"}, {"data": "x", "to": "y"}),
        (data_and_rest, {"data": "x", "to": "y"}, {"data": "x", "to": "y"}),
        (keys, {"to": "a"}, {"to": "a"}),
        (keys, {"to": "a", "subject": "b"}, {"to": "a", "subject": "b"}),
        (keyword_only, {"to": "a", "subject": "b"}, {"to": "a", "subject": "b"}),
        (with_job, {"to": "a"}, {"to": "a", "job": JOB}),
        (with_job_last, {"to": "a"}, {"to": "a", "job": JOB}),
        (only_job, {}, {"job": JOB}),
        (anything, {"a": 1, "job": 2}, {"a": 1, "job": 2}),
        (job_and_anything, {"a": 1}, {"a": 1, "job": JOB}),
        (anything_called_job, {"a": 1}, {"a": 1}),
        (with_args, {"to": "a"}, {"to": "a"}),
        (functools.partial(keys, subject="x"), {"to": "a"}, {"to": "a"}),
        (functools.partial(keys, "a"), {"subject": "x"}, {"subject": "x"}),
        (coroutine, {"to": "a"}, {"to": "a"}),
    ],
)
def test_data_becomes_arguments(function: Callable[..., Any], data: dict[str, Any], expected: dict[str, Any]) -> None:
    before = dict(data)
    given_job = a_job(**data)

    arguments = a_handler(function).arguments(given_job)

    assert arguments == {name: given_job if value is JOB else value for name, value in expected.items()}
    inspect.signature(function).bind(**arguments)
    assert given_job.data == before


@pytest.mark.parametrize(
    ("function", "data", "misfit"),
    [
        (nothing, {"a": 1}, "unexpected: a"),
        (keys, {}, "missing: to"),
        (keys, {"too": "a"}, "missing: to; unexpected: too"),
        (data_among_others, {"b": 1, "a": 2}, "missing: data, to; unexpected: a, b"),
        (data_and_rest, {"a": 1}, "missing: data"),
        (with_job, {}, "missing: to"),
        (with_job, {"to": "a", "job": 1}, "unexpected: job"),
        (only_job, {"job": 1}, "unexpected: job"),
        (job_and_anything, {"a": 1, "job": 1}, "unexpected: job"),
        (with_args, {"to": "a", "args": [1]}, "unexpected: args"),
        (functools.partial(keys, "a"), {"to": "b"}, "unexpected: to"),
    ],
)
def test_data_that_does_not_fit_is_refused_with_its_keys(function: Any, data: dict[str, Any], misfit: str) -> None:
    with pytest.raises(BadArguments) as caught:
        a_handler(function).arguments(a_job(**data))

    name = getattr(function, "func", function).__name__
    assert str(caught.value) == f"data does not fit the parameters of {__name__}.{name} ({misfit})"


def test_another_job_can_be_passed_to_the_handler() -> None:
    other = a_job(to="b")

    assert a_handler(with_job).arguments(a_job(to="a"), other) == {"to": "a", "job": other}
    assert a_handler(keys).arguments(a_job(to="a"), other) == {"to": "a"}


NAMES = st.sampled_from(["a", "b", "c", "data", "job", "self"])
KINDS = st.sampled_from([inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY])


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    """Return any signature that can be called with keyword arguments only."""
    chosen = draw(st.dictionaries(NAMES, st.tuples(KINDS, st.booleans())))
    parameters = [
        inspect.Parameter(name, kind, default=None if optional else inspect.Parameter.empty)
        for name, (kind, optional) in sorted(chosen.items(), key=lambda item: (item[1][0], item[1][1]))
    ]
    if draw(st.booleans()):
        parameters.append(inspect.Parameter("rest", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)


@settings(deadline=None)  # a busy machine must not fail the test
@given(signatures(), st.dictionaries(NAMES, st.integers()))
def test_data_fits_exactly_when_python_accepts_the_call(signature: inspect.Signature, data: dict[str, int]) -> None:
    def function(**given: Any) -> None: ...

    function.__signature__ = signature  # type: ignore[attr-defined]  # inspect reads this attribute
    the_job = a_job(**data)
    handler = a_handler(function)

    others = [name for name in signature.parameters if name != "job"]
    named = {"data": data} if others == ["data"] else data
    try:
        if "job" in signature.parameters:
            expected: dict[str, Any] | None = signature.bind(**named, job=the_job).arguments
        else:
            expected = signature.bind(**named).arguments
    except TypeError:
        expected = None

    if expected is None:
        with pytest.raises(BadArguments):
            handler.arguments(the_job)
    else:
        assert signature.bind(**handler.arguments(the_job)).arguments == expected


# The delay before another try


def test_delay_comes_from_the_handlers_backoff() -> None:
    assert [a_handler(nothing, backoff=lambda attempt: attempt * 10).delay(attempt) for attempt in (1, 2)] == [10, 20]
    assert a_handler(nothing, backoff=constant(0)).delay(1) == 0


@pytest.mark.parametrize("answer", [None, "soon", -1, math.nan, math.inf, 1e300])
def test_backoff_that_returns_invalid_seconds_is_logged_and_replaced(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handler = a_handler(nothing, backoff=lambda _: answer)

    with caplog.at_level(logging.ERROR):
        assert 1.5 <= handler.delay(2) <= 2.5

    told = [(record.__dict__["event"], record.__dict__["job_type"]) for record in caplog.records]
    assert told == [("backoff.error", "t")]


def test_backoff_that_raises_is_logged_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    def broken(attempt: int) -> float:
        return 1 / (attempt - 1)

    with caplog.at_level(logging.ERROR):
        assert 0.75 <= a_handler(nothing, backoff=broken).delay(1) <= 1.25

    assert "ZeroDivisionError" in caplog.text
