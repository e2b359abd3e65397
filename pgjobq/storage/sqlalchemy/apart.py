"""Work on many rows, of which the database may refuse some: those are found, and hold up no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgjobq.errors import StorageError, StorageUnavailable


def each_apart(
    ids: Sequence[str], work: Callable[[Sequence[str]], int], refused: Callable[[str, StorageError], None]
) -> int:
    """The sum of what work returns for the ids, together when the database takes them so.

    work is a transaction. After an error that is not the connection's the ids are halved, down to those that cause it.
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
