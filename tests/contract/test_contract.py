"""Tests of StorageContract: correct storages pass it, and each broken storage fails with the promise that it breaks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import helpers.broken_storages  # fills CASES
import pytest
from helpers.broken_cases import CASES
from helpers.memory_storages import DictStorage, Memory, MemoryStorage

import pgjobq.testing
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.testing import StorageContract

BROKEN = Path(helpers.broken_storages.__file__)


class TestPostgresStorage(StorageContract):
    """Includes the tests of all optional methods."""

    storage_class = PostgresStorage

    @pytest.fixture
    def make_storage(self, dsn: str) -> Callable[[], PostgresStorage]:
        return partial(PostgresStorage, dsn)


class TestSevenMethods(StorageContract):
    """A storage with only the seven abstract methods, which works in one process."""

    storage_class = DictStorage
    processes = False

    @pytest.fixture
    def make_storage(self) -> Callable[[], DictStorage]:
        return partial(DictStorage, Memory())


class TestMemoryStorage(StorageContract):
    """A storage with all optional methods. Most broken storages are subclasses of it."""

    storage_class = MemoryStorage
    processes = False

    @pytest.fixture
    def make_storage(self) -> Callable[[], MemoryStorage]:
        return partial(MemoryStorage, Memory())


# -- broken storages -----------------------------------------------------------------------------------

REPORTED = "test_broken_promise_is_reported"
SAYS = [(name, test, sentence) for name, case in CASES.items() for test, sentence in case.says.items()]


@pytest.fixture(scope="module")
def failures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Return the failure message of each test of each broken storage.

    One run of pytest collects them all. It runs only the tests that the present session has selected.
    """
    folder = tmp_path_factory.mktemp("report")
    report = folder / "report.xml"
    items: list[Any] = [item for item in request.session.items if getattr(item, "originalname", "") == REPORTED]
    tests = [f"{BROKEN}::Test{params['name']}::{params['test']}" for params in (item.callspec.params for item in items)]
    # pytest makes its default base folder private, but a server of another test may use it as another user.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'of-tests'}"]
    command += [f"--junitxml={report}", *tests]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BROKEN.parent, timeout=600)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found: dict[tuple[str, str], str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # pytest wrote it
        failure = case.find("failure")
        said = "" if failure is None else failure.get("message", "")
        found[case.get("classname", "").rpartition(".Test")[2], case.get("name", "")] = said
    return found


@pytest.mark.parametrize(("name", "test", "sentence"), SAYS)
def test_broken_promise_is_reported(failures: dict[tuple[str, str], str], name: str, test: str, sentence: str) -> None:
    assert failures[name, test].startswith("pgjobq.testing.promises.BrokenPromise: ")
    assert sentence in failures[name, test]


def test_every_test_of_the_contract_can_fail() -> None:
    tests = {name for name in dir(StorageContract) if name.startswith("test_")}
    assert tests == {test.partition("[")[0] for _, test, _ in SAYS}


# -- which tests apply ------------------------------------------------------------------------------------

PLAIN = """
from functools import partial

import pytest
from helpers.memory_storages import DictStorage, Memory, MemoryStorage

from pgjobq.testing import StorageContract


class TestWithoutClass(StorageContract):
    processes = False

    @pytest.fixture
    def make_storage(self):
        return partial(DictStorage, Memory())


class TestWithClass(TestWithoutClass):
    storage_class = DictStorage


class TestWithClassAndChoices(TestWithClass):
    storage_class = MemoryStorage
    cancels = False
    test_release = None


class TestWithoutFixture(StorageContract):
    pass
"""


@pytest.fixture
def run_pytest(tmp_path: Path) -> Callable[..., str]:
    """Run pytest on a file that contains PLAIN, and return its output."""
    (tmp_path / "test_plain.py").write_text(PLAIN)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", "-c", "/dev/null"]
        command += [f"--basetemp={tmp_path / 'of-tests'}", *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=120,
            env=os.environ | {"PYTHONPATH": str(BROKEN.parents[1])},
        )
        return done.stdout + done.stderr

    return run


def test_tests_of_missing_features_are_left_out(run_pytest: Callable[..., str]) -> None:
    collected = run_pytest("--collect-only", "test_plain.py")

    def has(name: str, test: str) -> bool:
        return f"test_plain.py::{name}::{test}\n" in collected

    assert [has("TestWithoutClass", test) for test in ("test_cancel", "test_prune", "test_fail")] == [True, True, True]
    assert [has("TestWithClass", test) for test in ("test_cancel", "test_prune", "test_fail")] == [False, False, True]
    tests = ("test_cancel", "test_prune", "test_fail", "test_release", "test_processes_on_one_database")
    assert [has("TestWithClassAndChoices", test) for test in tests] == [False, True, True, False, False]


def test_tests_of_missing_features_are_skipped_without_storage_class(run_pytest: Callable[..., str]) -> None:
    printed = run_pytest("test_plain.py::TestWithoutClass::test_cancel", "test_plain.py::TestWithoutClass::test_fail")
    assert "1 passed, 1 skipped" in printed
    assert "DictStorage does not support cancels; set storage_class = DictStorage to leave its tests out" in printed


def test_missing_fixture_is_explained(run_pytest: Callable[..., str]) -> None:
    printed = run_pytest("test_plain.py::TestWithoutFixture::test_fail")
    assert "TestWithoutFixture has no fixture make_storage; define one that returns a callable" in printed


@pytest.mark.parametrize("missing", ["pytest", "hypothesis"])
def test_missing_requirement_is_named(missing: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
import pgjobq, pgjobq.testing, pgjobq.testing.children
try:
    from pgjobq.testing import StorageContract
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"pgjobq.testing needs {missing}; run: pip install 'pytest>=8.4' 'hypothesis>=6.100'\n"


def test_package_has_no_other_names() -> None:
    assert pgjobq.testing.__all__ == ["BrokenPromise", "StorageContract"]
    with pytest.raises(AttributeError, match="nonsense"):
        _ = pgjobq.testing.nonsense
