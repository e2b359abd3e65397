"""The version of the layout of the keys, which lua/common.lua describes."""

from __future__ import annotations

from pgjobq.errors import SchemaTooNew

LAYOUT = 1


def check_layout(found: int, where: str, root: str) -> None:
    """Raise SchemaTooNew for the layout of a later version of pgjobq."""
    if found > LAYOUT:
        raise SchemaTooNew(
            f"Redis at {where}: the keys of {root} have version {found}, this pgjobq supports up to {LAYOUT};"
            " upgrade pgjobq"
        )
