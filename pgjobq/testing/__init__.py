"""The contract of storages as tests: write a subclass of StorageContract with one fixture, and run pytest.

The tests need the extra testing: pip install 'pytest>=8.4' 'hypothesis>=6.100'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgjobq.testing.contract import StorageContract
    from pgjobq.testing.promises import BrokenPromise

__all__ = ["BrokenPromise", "StorageContract"]

# Import these at their first use, because the processes that the contract starts need neither pytest nor hypothesis.
_LATE = {"BrokenPromise": "pgjobq.testing.promises", "StorageContract": "pgjobq.testing.contract"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'pgjobq.testing' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_LATE[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in {"pytest", "hypothesis"}:
            raise
        needed = "pip install 'pytest>=8.4' 'hypothesis>=6.100'"
        raise ImportError(f"pgjobq.testing needs {error.name}; run: {needed}") from error
