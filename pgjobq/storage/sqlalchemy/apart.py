"""Work on many rows, find those that the database refuses, and process the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgjobq.errors import StorageError, StorageUnavailable


def each_apart(
    ids: Sequence[str], work: Callable[[Sequence[str]], int], refused: Callable[[str, StorageError], None]
) -> int:
    """Call work with all ids, or with parts of them if the database refuses some. Return the sum of the results.

    work is one transaction. After an error, unless the connection failed, the ids are halved until the ids that cause
    the error are found.
    """
    if not ids:
        return 0
    try:
        return work(ids)
    except StorageUnavailable:
        raise
    except StorageError as error:
        if len(ids) == 1:
            refused(ids[0], error)
            return 0
        half = len(ids) // 2
        return each_apart(ids[:half], work, refused) + each_apart(ids[half:], work, refused)
