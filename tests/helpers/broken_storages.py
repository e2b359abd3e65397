"""Applies the contract to each broken storage. All these tests fail, with the message that their case names.

Only test_contract.py runs them. pytest does not collect tests from a file of this name unless it is named.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import helpers.broken_endings  # noqa: F401  # fills CASES
from helpers.broken_cases import CASES, Case, breaks
from helpers.broken_elsewhere import (
    FailsElsewhere,
    FileStorage,
    LosesWhatWasCompletedElsewhere,
    NeverRescuesElsewhere,
    NoFencingElsewhere,
    ReopensAnother,
    SelectsThenStartsElsewhere,
    SharesNothingElsewhere,
)
from helpers.broken_more import PENDING_AGAIN
from helpers.broken_seven import SAME_START
from pgjobq import BaseStorage
from pgjobq.testing import StorageContract

PROCESSES = "test_processes_on_one_database"
REOPENED = "test_reopened_storage_completes_jobs"
LEASE = "test_lease_of_a_suspended_process"
elsewhere: dict[type[FileStorage], dict[str, str]] = {
    FailsElsewhere: {PROCESSES: "processes: a storage works in a child process"},
    SharesNothingElsewhere: {PROCESSES: "processes: a storage in another process sees the same jobs"},
    SelectsThenStartsElsewhere: {PROCESSES: SAME_START},
    NeverRescuesElsewhere: {"test_rescue_of_a_killed_process": PENDING_AGAIN},
    NoFencingElsewhere: {LEASE: "fencing: complete by a worker whose lease expired"},
    ReopensAnother: {REOPENED: "reopener: opens the same jobs"},
    LosesWhatWasCompletedElsewhere: {REOPENED: "settle: a job that a reopened storage has completed is not lost"},
}
for _storage, _says in elsewhere.items():
    breaks(_says, processes=True, jobs=60, rescue_within=2.5)(_storage)


def contract_of(name: str, case: Case) -> type:
    """Return the subclass of StorageContract for a broken storage."""

    def make_storage(self: Any, tmp_path: Path) -> Callable[[], BaseStorage]:
        if issubclass(case.storage, FileStorage):
            return partial(case.storage, f"sqlite:///{tmp_path}/jobs.db", lease=1.0)
        return partial(case.storage, case.memory())

    body = {
        "storage_class": case.storage,
        "processes": False,
        **case.settings,
        "make_storage": pytest.fixture(make_storage),
    }
    return type(f"Test{name}", (StorageContract,), body)


for _name, _case in CASES.items():
    globals()[f"Test{_name}"] = contract_of(_name, _case)
