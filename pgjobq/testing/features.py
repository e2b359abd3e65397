"""The fixtures and settings of the contract, and the rule that selects the tests for a storage."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import pytest

from pgjobq.storage.base import BaseStorage
from pgjobq.storage.leased import LeasedStorage

F = TypeVar("F", bound=Callable[..., Any])
MakeStorage = Callable[[], BaseStorage]


def _overrides(*names: str) -> Callable[[type[BaseStorage]], bool]:
    return lambda cls: any(getattr(cls, name) is not getattr(BaseStorage, name) for name in names)


# For each optional feature of a storage: a function that tells from the class whether the storage has the feature.
FEATURES: dict[str, Callable[[type[BaseStorage]], bool]] = {
    "batches": _overrides("enqueue_many"),
    "queues": lambda cls: "queue" in inspect.signature(cls.list_jobs).parameters,
    "settles": _overrides("settle"),
    "releases": _overrides("release"),
    "cancels": _overrides("cancel"),
    "reasons": lambda cls: _overrides("cancel")(cls) and "reason" in inspect.signature(cls.cancel).parameters,
    "cancels_many": _overrides("cancel_jobs"),
    "prunes": _overrides("prune"),
    "rescues": _overrides("rescue"),
    "leases": lambda cls: issubclass(cls, LeasedStorage),
    "notices": _overrides("maintain"),
    "imports": _overrides("import_jobs"),
    "leaves": _overrides("leave_types"),
    "results": lambda cls: cls.keeps_results,
    "reopens": _overrides("reopener"),
    "transacts": _overrides("transaction"),
    "schedules": _overrides("create_schedule"),
}


def needs(*features: str) -> Callable[[F], F]:
    """Mark a test that applies only to storages that have all these features."""

    def mark(test: F) -> F:
        test.__dict__["needs"] = features
        return test

    return mark


class StorageTests:
    """The settings and fixtures of the contract; see StorageContract."""

    storage_class: ClassVar[type[BaseStorage] | None] = None

    batches: ClassVar[bool | None] = None
    queues: ClassVar[bool | None] = None
    settles: ClassVar[bool | None] = None
    releases: ClassVar[bool | None] = None
    cancels: ClassVar[bool | None] = None
    reasons: ClassVar[bool | None] = None
    cancels_many: ClassVar[bool | None] = None
    prunes: ClassVar[bool | None] = None
    rescues: ClassVar[bool | None] = None
    leases: ClassVar[bool | None] = None
    notices: ClassVar[bool | None] = None
    imports: ClassVar[bool | None] = None
    leaves: ClassVar[bool | None] = None
    results: ClassVar[bool | None] = None
    reopens: ClassVar[bool | None] = None
    transacts: ClassVar[bool | None] = None
    schedules: ClassVar[bool | None] = None
    processes: ClassVar[bool] = True

    jobs: ClassVar[int] = 300
    batch: ClassVar[int] = 500
    examples: ClassVar[int] = 25
    steps: ClassVar[int] = 25
    derandomize: ClassVar[bool] = True
    largest_data: ClassVar[int] = 1_000_000  # bytes
    patience: ClassVar[float] = 30.0  # seconds
    rescue_within: ClassVar[float] = 60.0  # seconds

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in [name for name in dir(cls) if name.startswith("test_") and name not in vars(cls)]:
            test = next(there for base in cls.__mro__ if (there := vars(base).get(name)) is not None)
            if features := getattr(test, "needs", ()):
                # pytest does not collect an attribute that is None.
                setattr(cls, name, None if any(cls.has(f) is False for f in features) else test)

    @classmethod
    def has(cls, feature: str) -> bool | None:
        """Return whether the storage has the feature, or None if this is unknown without an instance."""
        said: bool | None = getattr(cls, feature)
        if said is None and cls.storage_class is not None:
            return FEATURES[feature](cls.storage_class)
        return said

    @classmethod
    def shows(cls, feature: str, storage: BaseStorage) -> bool:
        """Return whether this storage has the feature."""
        said = cls.has(feature)
        return FEATURES[feature](type(storage)) if said is None else said

    @pytest.fixture
    def make_storage(self) -> MakeStorage:
        """Must be overridden by the subclass."""
        pytest.fail(
            f"{type(self).__name__} has no fixture make_storage; define one that returns a callable without arguments,"
            " which creates a storage on a database that is empty when the test begins",
            pytrace=False,
        )

    @pytest.fixture
    def open_storage(self, make_storage: MakeStorage) -> Iterator[MakeStorage]:
        """Return a callable that creates storages on the test's database. They are closed at the end of the test."""
        made: list[BaseStorage] = []

        def make() -> BaseStorage:
            made.append(make_storage())
            return made[-1]

        yield make
        for storage in made:
            storage.close()

    @pytest.fixture
    def storage(self, open_storage: MakeStorage) -> BaseStorage:
        """Return a storage on the test's database."""
        return open_storage()

    @pytest.fixture
    def other(self, storage: BaseStorage, open_storage: MakeStorage) -> BaseStorage:
        """Return a second storage on the same database, which acts as another worker."""
        return open_storage()

    @pytest.fixture(autouse=True)
    def _applies(self, request: pytest.FixtureRequest) -> None:
        for feature in getattr(request.function, "needs", ()):
            if self.has(feature) is None:
                storage = request.getfixturevalue("storage")
                if not self.shows(feature, storage):
                    kind = type(storage).__name__
                    pytest.skip(f"{kind} does not support {feature}; set storage_class = {kind} to leave its tests out")
