"""The assertions of the contract's tests. Every failure message states the broken promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage

T = TypeVar("T")

POLL = 0.02  # seconds between checks
LONGEST = 400  # the length at which shown values are cut, in characters


class BrokenPromise(AssertionError):
    """The storage breaks a promise of the contract."""


def broken(sentence: str, **facts: Any) -> BrokenPromise:
    """Return the error for a broken promise. The facts are values that show how it is broken."""
    lines = [f"\n  {name.replace('_', ' ')}: {_short(value)}" for name, value in facts.items()]
    return BrokenPromise(sentence + "".join(lines))


def promise(kept: object, sentence: str, **facts: Any) -> None:
    """Raise BrokenPromise unless `kept` is true."""
    __tracebackhide__ = True
    if not kept:
        raise broken(sentence, **facts)


def same(found: object, expected: object, sentence: str) -> None:
    """Raise BrokenPromise unless found equals expected."""
    __tracebackhide__ = True
    if found != expected:
        raise broken(sentence, expected=expected, found=found)


@contextmanager
def refused(error: type[Exception], sentence: str) -> Iterator[None]:
    """Raise BrokenPromise unless the block raises this error."""
    __tracebackhide__ = True
    try:
        yield
    except error:
        return
    except Exception as other:
        raise broken(sentence, expected=error.__name__, raised=repr(other)) from other
    raise broken(sentence, expected=error.__name__, raised="nothing")


@contextmanager
def accepted(sentence: str) -> Iterator[None]:
    """Raise BrokenPromise if the block raises an error."""
    __tracebackhide__ = True
    try:
        yield
    except Exception as error:
        raise broken(sentence, raised=repr(error)) from error


@contextmanager
def unchanged(storage: BaseStorage, job_id: str, sentence: str) -> Iterator[None]:
    """Raise BrokenPromise if the block changes the job."""
    __tracebackhide__ = True
    before = storage.get_job(job_id)
    yield
    same(storage.get_job(job_id), before, sentence)


def eventually(check: Callable[[], T | None], sentence: str, within: float) -> T:
    """Call check repeatedly and return its first true result. Raise BrokenPromise after `within` seconds."""
    __tracebackhide__ = True
    deadline = time.monotonic() + within
    while not (seen := check()):
        if time.monotonic() > deadline:
            raise broken(sentence, waited=f"{within:g} s")
        time.sleep(POLL)
    return seen


def taken(storage: BaseStorage, job_id: str, sentence: str = "dequeue: returns the next due job") -> Job:
    """Dequeue a job and return it. Raise BrokenPromise unless it is this job."""
    __tracebackhide__ = True
    job = storage.dequeue()
    if job is None or job.id != job_id:
        raise broken(sentence, expected=job_id, found=job and job.id)
    return job


def stored(storage: BaseStorage, job_id: str) -> Job:
    """Return the job from the storage. Raise BrokenPromise if the storage does not have it."""
    __tracebackhide__ = True
    job = storage.get_job(job_id)
    if job is None:
        raise broken("get_job: returns every job that was enqueued and not pruned", job_id=job_id, found=None)
    return job


def ids(jobs: Sequence[Job]) -> list[str]:
    """Return the ids of the jobs, in order."""
    return [job.id for job in jobs]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
