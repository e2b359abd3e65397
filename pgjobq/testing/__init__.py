"""The contract of storages, as tests: make a class of StorageContract, give it one fixture, run pytest.

Needs pytest and hypothesis: pip install 'pgjobq[testing]'.
"""

from __future__ import annotations

try:
    from pgjobq.testing.contract import StorageContract
    from pgjobq.testing.promises import BrokenPromise
except ModuleNotFoundError as error:
    if error.name not in {"pytest", "hypothesis"}:
        raise
    raise ImportError(f"pgjobq.testing needs {error.name}; run: pip install 'pgjobq[testing]'") from error

__all__ = ["BrokenPromise", "StorageContract"]
