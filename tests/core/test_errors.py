"""The hierarchy of errors, their default messages, and the verdicts that a handler raises."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from pgjobq import errors
from pgjobq.errors import Fail, InvalidJob, PgjobqError, Retry

ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PgjobqError)]


def test_every_error_derives_from_its_documented_base() -> None:
    expected = {
        "PgjobqError": Exception,
        "InvalidJob": PgjobqError,
        "InvalidSchedule": errors.InvalidJob,
        "ScheduleNotFound": PgjobqError,
        "DuplicateJob": PgjobqError,
        "KeyTaken": PgjobqError,
        "JobNotFound": PgjobqError,
        "LostJob": PgjobqError,
        "Cancelled": errors.LostJob,
        "UnknownJobType": PgjobqError,
        "BadArguments": PgjobqError,
        "JobTimeout": PgjobqError,
        "JobFailed": PgjobqError,
        "WaitTimeout": PgjobqError,
        "ProcessDied": PgjobqError,
        "StorageError": PgjobqError,
        "JobsHeld": errors.StorageError,
        "StorageUnavailable": errors.StorageError,
        "NotMigrated": errors.StorageError,
        "SchemaTooNew": errors.StorageError,
        "SchemaConflict": errors.StorageError,
        "Unsupported": PgjobqError,
        "ConfigurationError": PgjobqError,
    }
    assert {error.__name__: error.__bases__[0] for error in ERRORS} == expected


def test_errors_also_derive_from_the_matching_builtin_errors() -> None:
    assert issubclass(errors.InvalidJob, ValueError)
    assert issubclass(errors.ConfigurationError, ValueError)
    assert issubclass(errors.JobNotFound, LookupError)


@pytest.mark.parametrize("error", ERRORS)
def test_docstring_is_the_default_message(error: type[PgjobqError]) -> None:
    first_line = (error.__doc__ or "").splitlines()[0]

    assert first_line.endswith(".")
    assert str(error()) == first_line
    assert str(error("what happened")) == "what happened"
    assert str(error("")) == ""


def test_invalid_job_keeps_its_field_when_pickled() -> None:
    error = pickle.loads(pickle.dumps(InvalidJob("priority: too big", field="priority")))  # noqa: S301  # our own bytes

    assert (str(error), error.field) == ("priority: too big", "priority")
    assert InvalidJob("something").field is None


def test_verdicts_are_not_pgjobq_errors() -> None:
    # `except PgjobqError` around a handler's calls must not catch the verdict that the handler raises for the worker.
    assert not issubclass(Retry, PgjobqError)
    assert not issubclass(Fail, PgjobqError)


@pytest.mark.parametrize("delay", [None, 0, 0.5, 60, 3.2e9])
def test_retry_carries_delay_and_reason(delay: float | None) -> None:
    retry = pickle.loads(pickle.dumps(Retry(delay, "rate limit")))  # noqa: S301  # our own bytes

    assert (retry.delay, retry.reason, str(retry)) == (delay, "rate limit", "rate limit")


def test_retry_without_a_reason_has_a_default_message() -> None:
    assert (Retry().delay, Retry().reason) == (None, "")
    assert str(Retry()) == "the handler asked for another try"


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, 3.3e9, "60", True])
def test_retry_refuses_a_delay_that_no_storage_accepts(delay: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^delay: .* use seconds from 0 to") as caught:
        Retry(delay)

    assert caught.value.field == "delay"


def test_fail_carries_its_reason() -> None:
    fail = pickle.loads(pickle.dumps(Fail("no such customer")))  # noqa: S301  # our own bytes

    assert (fail.reason, str(fail)) == ("no such customer", "no such customer")
