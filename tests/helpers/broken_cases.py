"""The registry of broken storages. Each case names the contract's tests that must fail, and their messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from helpers.memory_storages import DictStorage, Memory
from pgjobq import BaseStorage


@dataclass(frozen=True)
class Case:
    """A broken storage, and for each test that must fail, a part of its message."""

    storage: Any  # a class of storages
    memory: type[Memory]
    says: dict[str, str]
    settings: dict[str, Any]


B = TypeVar("B", bound=BaseStorage | Memory)
CASES: dict[str, Case] = {}


def breaks(
    says: dict[str, str], *, storage: type[BaseStorage] = DictStorage, **settings: Any
) -> Callable[[type[B]], type[B]]:
    """Register the decorated class as a case. It is a broken storage, or a broken Memory for `storage`."""

    def register(broken: type[B]) -> type[B]:
        kind, memory = (storage, broken) if issubclass(broken, Memory) else (broken, Memory)
        CASES[broken.__name__] = Case(kind, memory, says, settings)
        return broken

    return register
