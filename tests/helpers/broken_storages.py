"""Storages that break one promise each, and the sentence with which the contract says so.

Run by test_contract.py alone: pytest collects nothing from a file of this name by itself.
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
    LooksThenTakesElsewhere,
    NeverRescuesElsewhere,
    NoFencingElsewhere,
    OnItsOwnElsewhere,
)
from helpers.broken_more import PENDING_AGAIN
from helpers.broken_seven import SAME_START
from pgjobq import BaseStorage
from pgjobq.testing import StorageContract

ONE = "test_processes_on_one_database"
LEASE = "test_lease_of_a_process_that_stands_still"
elsewhere: dict[type[FileStorage], dict[str, str]] = {
    FailsElsewhere: {ONE: "processes: a storage works in a process of its own"},
    OnItsOwnElsewhere: {ONE: "processes: a storage in another process sees the same jobs"},
    LooksThenTakesElsewhere: {ONE: SAME_START},
    NeverRescuesElsewhere: {"test_rescue_of_a_killed_process": PENDING_AGAIN},
    NoFencingElsewhere: {LEASE: "fencing: complete by a worker whose lease ran out"},
}
for _storage, _says in elsewhere.items():
    breaks(_says, processes=True, jobs=60, rescue_within=2.5)(_storage)


def contract_of(name: str, case: Case) -> type:
    """The test class for a broken storage."""

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
