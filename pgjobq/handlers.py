"""Handlers are the functions that run jobs. A Registry finds them by the type of job."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar, overload

from pgjobq.backoff import Backoff, BackoffFunction
from pgjobq.checks import check_name, check_whole_number
from pgjobq.declarations import Declarations
from pgjobq.definitions import Definition, is_async, location_of, not_a_handler, parameters_of, place_of
from pgjobq.errors import MAX_DELAY, BadArguments, ConfigurationError, InvalidJob, UnknownJobType
from pgjobq.isolation import check_isolation
from pgjobq.models import MAX_NAME, Job, UnreadableData
from pgjobq.plain import seconds_of
from pgjobq.schedules import Schedule
from pgjobq.unique import OPTIONS, check_template, key_from

F = TypeVar("F", bound=Callable[..., Any])

_Kind = inspect.Parameter


@dataclass(frozen=True, kw_only=True)
class Handler:
    """A function, and the settings with which its jobs are enqueued and run. `job` creates it.

    Raises ConfigurationError for invalid settings.
    """

    type: str
    function: Callable[..., Any]
    queue: str = "default"
    priority: int = 5
    max_retries: int = 3
    backoff: BackoffFunction = field(default_factory=Backoff)
    timeout: float | None = None  # seconds
    unique: str | None = None  # the key of its jobs, as a format of their data: 'doc:{doc_id}'
    capture_logs: bool = False  # keep what the function logs
    keep_result: bool = True  # keep what the function returns as the job's result
    unique_while: str | None = None
    unique_for: float | None = None  # seconds
    on_conflict: str | None = None
    debounce_ceiling: float | None = None  # seconds
    isolate: str | None = None  # "process": each job in a process of its own
    kill_grace: float | None = None  # seconds from SIGTERM to SIGKILL
    memory_limit: int | None = None  # bytes
    is_async: bool = field(init=False)
    on_loop: bool = field(init=False)  # the worker's event loop runs it
    wants_job: bool = field(init=False)
    _whole: bool = field(init=False, repr=False)
    _required: frozenset[str] = field(init=False, repr=False)
    _known: frozenset[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("timeout", "unique_for", "debounce_ceiling", "kill_grace"):
            object.__setattr__(self, name, seconds_of(getattr(self, name)))
        self._check()
        parameters = parameters_of(self.function)
        open_ended = any(p.kind is _Kind.VAR_KEYWORD for p in parameters.values())
        named = {n: p for n, p in parameters.items() if p.kind in (_Kind.POSITIONAL_OR_KEYWORD, _Kind.KEYWORD_ONLY)}
        wants_job = named.pop("job", None) is not None
        required = frozenset(name for name, p in named.items() if p.default is _Kind.empty)
        for name, value in {
            "is_async": is_async(self.function),
            "on_loop": is_async(self.function) and self.isolate is None,
            "wants_job": wants_job,
            "_whole": list(named) == ["data"] and not open_ended,
            "_required": required,
            "_known": None if open_ended else frozenset(named),
        }.items():
            object.__setattr__(self, name, value)
        options = {name: getattr(self, name) for name in OPTIONS}
        check_template(self.unique, None if self._whole else self._known, options)

    def arguments(self, job: Job, given: Job | None = None) -> dict[str, Any]:
        """Return the keyword arguments for a job. BadArguments names the missing and the unexpected keys.

        given: the object to pass as `job` in place of the job itself.
        """
        arguments: dict[str, Any]
        if isinstance(job.data, UnreadableData):
            raise BadArguments(f"data cannot be read: {job.data.reason}")
        if self._whole:
            arguments = {"data": job.data}
        else:
            arguments = job.data
            if not (self._required.issubset(arguments) and (self._known is None or self._known.issuperset(arguments))):
                raise BadArguments(self._misfit(arguments))
        if self.wants_job:
            if "job" in arguments:  # only if the handler has **kwargs; the check above refuses it otherwise
                raise BadArguments(self._misfit(arguments))
            arguments = {**arguments, "job": given or job}
        return arguments

    def check_data(self, data: object) -> None:
        """Raise InvalidJob if the data of a new job does not fit the parameters, so that its run would fail."""
        given = {} if data is None else data
        if self._whole or not isinstance(given, dict):
            return  # a whole dict always fits, and encode_data refuses what is not a dict
        fits = self._required.issubset(given) and (self._known is None or self._known.issuperset(given))
        if not fits or (self.wants_job and "job" in given):
            raise InvalidJob(self._misfit(given), field="data")

    def unique_key(self, data: dict[str, Any] | None) -> str | None:
        """The unique key of a job with this data, or None; InvalidJob if the data lacks a field of it."""
        return None if self.unique is None else key_from(self.unique, data or {}, self.type)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after failed attempt number `attempt`, counted from 1. Any storage accepts them.

        If the backoff function raises or returns an invalid number, this is logged and the default backoff is used,
        because a faulty function must not lose a job.
        """
        try:
            seconds = float(seconds_of(self.backoff(attempt)))
            if not 0 <= seconds <= MAX_DELAY:
                raise ConfigurationError(f"backoff: returned {seconds!r}; return seconds from 0 to {MAX_DELAY:.0f}")
            return seconds
        except BaseException as error:
            from pgjobq.events import EventLog  # imported late, because a program that only enqueues does not need it

            extra = {"job_type": self.type, "attempts": attempt, "error": error}
            EventLog("pgjobq.handlers").error("backoff.error", extra=extra, exc_info=error)
            return Backoff()(attempt)

    def _misfit(self, data: dict[str, Any]) -> str:
        missing = sorted(self._required - data.keys())
        given_by_worker = {"job"} if self.wants_job else frozenset[str]()
        extra = data.keys() - self._known if self._known is not None else data.keys() & given_by_worker
        unexpected = sorted(map(str, extra))
        parts = [f"missing: {', '.join(missing)}"] * bool(missing)
        parts += [f"unexpected: {', '.join(unexpected)}"] * bool(unexpected)
        return f"data does not fit the parameters of {place_of(self.function)} ({'; '.join(parts)})"

    def _check(self) -> None:
        if not callable(self.function):
            raise ConfigurationError(
                f"function: {self.function!r} is not callable; decorate a function with @job or @job(type=...)"
            )
        try:
            check_name("type", self.type, "a name for the type of job", MAX_NAME)
            check_name("queue", self.queue, "the name of a queue", MAX_NAME)
            check_whole_number("priority", self.priority, -(2**31), 2**31 - 1)
            check_whole_number("max_retries", self.max_retries, 0, 2**31 - 2)
        except InvalidJob as error:
            raise ConfigurationError(f"handler {place_of(self.function)}: {error}") from None
        if not callable(self.backoff):
            raise ConfigurationError(
                f"backoff: {self.backoff!r} is not callable; use Backoff(...) or a function from the attempt to seconds"
            )
        for name in ("capture_logs", "keep_result"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}: {getattr(self, name)!r} is not allowed; use True or False")
        number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if self.timeout is not None and not (number and 0 < self.timeout <= MAX_DELAY):
            raise ConfigurationError(f"timeout: {self.timeout!r} is not allowed; use seconds above 0, or None")
        check_isolation(self.function, self.isolate, self.kill_grace, self.memory_limit)


class Registry:
    """Maps types of jobs to their handlers."""

    def __init__(self) -> None:
        self._by_type: dict[str, Handler] = {}
        self._definitions: dict[str, Definition] = {}
        self._by_function: dict[Callable[..., Any], Handler] = {}
        self.declarations = Declarations()

    def register(self, handler: Handler) -> None:
        """Add a handler. If the same function is defined again, because its module was reloaded, it replaces the first.

        Raises ConfigurationError if the type has another function. A function of the same name may be another function:
        a second lambda, or a closure or method that holds other values.
        """
        there, definition = self._by_type.get(handler.type), Definition(handler.function)
        if there is not None and not definition.is_same(self._definitions[handler.type]):
            raise ConfigurationError(_conflict(handler.type, there.function, handler.function))
        try:
            self._by_function[handler.function] = handler
        except TypeError:
            raise ConfigurationError(
                f"function: {place_of(handler.function)} is not hashable, so its handler could not be found;"
                " add a __hash__ to its class, or wrap it in a function"
            ) from None
        self._by_type[handler.type], self._definitions[handler.type] = handler, definition

    def get(self, job_type: str) -> Handler:
        """Return the handler for a type. Raises UnknownJobType if there is none."""
        try:
            return self._by_type[job_type]
        except KeyError:
            known = ", ".join(sorted(self._by_type)) or "none"
            raise UnknownJobType(f"no handler for jobs of type {job_type!r}; registered: {known}") from None

    def for_function(self, function: Callable[..., Any]) -> Handler:
        """Return the handler of a decorated function. Raises UnknownJobType if it is not registered here.

        Raises InvalidJob for an object that is no function at all.
        """
        try:
            return self._by_function[function]
        except (KeyError, TypeError):  # TypeError: it is not hashable
            raise not_a_handler(function, self._by_function) from None

    def wrap(self, around: Callable[[Handler], Callable[..., Any]]) -> None:
        """Replace the function of each handler by what around returns for the handler. Functions stay the keys.

        Handlers that run in processes of their own are left as they are, because those import the function itself.
        """
        for job_type, handler in self._by_type.items():
            if handler.isolate is None:
                self._by_type[job_type] = replace(handler, function=around(handler))

    def schedules(self) -> dict[str, Schedule]:
        """Return the declared schedules by id. Raises ConfigurationError for one that cannot be created."""
        return self.declarations.resolved(self.for_function)

    def __contains__(self, job_type: object) -> bool:
        return job_type in self._by_type

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_type.values())

    def __len__(self) -> int:
        return len(self._by_type)


default_registry = Registry()


@overload
def job(function: F, /) -> F: ...
@overload
def job(
    *,
    type: str | None = None,
    queue: str = "default",
    priority: int = 5,
    max_retries: int = 3,
    backoff: BackoffFunction | None = None,
    timeout: float | timedelta | None = None,
    unique: str | None = None,
    keep_result: bool = True,
    capture_logs: bool = False,
    unique_while: Literal["unfinished", "pending"] | None = None,
    unique_for: float | timedelta | None = None,
    on_conflict: Literal["keep", "replace", "debounce", "error"] | None = None,
    debounce_ceiling: float | timedelta | None = None,
    isolate: Literal["process"] | None = None,
    kill_grace: float | timedelta | None = None,
    memory_limit: int | None = None,
    registry: Registry = default_registry,
) -> Callable[[F], F]: ...
def job(
    function: F | None = None,
    /,
    *,
    type: str | None = None,
    backoff: BackoffFunction | None = None,
    registry: Registry = default_registry,
    **settings: Any,
) -> F | Callable[[F], F]:
    """Register a sync or async function as the handler of a type of job, and return it unchanged.

    type: by default the function's name. queue, priority, max_retries: the defaults for enqueueing its jobs. backoff:
    maps the number of the try that failed to the seconds before the next try, or a timedelta. timeout: in seconds, or a
    timedelta; a job that runs longer is retried like a job that raised.
    unique: the unique key of its jobs, formatted from their data, such as "doc:{doc_id}". unique_while, unique_for,
    on_conflict, debounce_ceiling: the defaults for enqueueing them; see JobQueue.enqueue.
    keep_result: keep what the function returns as the job's result, unless it is None. A job whose result JSON cannot
    hold, or that is too large, fails without another try.
    capture_logs: keep what the function logs, up to 64 KiB for each try; JobQueue.logs returns it.
    isolate: "process" runs each job in a process of its own, which imports the function by its name. Its timeout and a
    cancel end that process: SIGTERM, and SIGKILL after kill_grace seconds, 5 by default. memory_limit: the most bytes
    of address space that the process may have.
    """

    def register(function: F) -> F:
        name = getattr(function, "__name__", "") if type is None else type
        backs_off = Backoff() if backoff is None else backoff
        registry.register(Handler(type=name, function=function, backoff=backs_off, **settings))
        return function

    return register if function is None else register(function)


def _conflict(job_type: str, there: Callable[..., Any], here: Callable[..., Any]) -> str:
    first, second = place_of(there), place_of(here)
    if first == second:
        first += f" at {location_of(there)}"
        second += f" at {location_of(here)}, which is another function or holds other values,"
    return (
        f"type {job_type!r} already has a handler: {first}; register {second} under another type, with @job(type=...)"
    )
