"""The keys, which lua/common.lua describes, and the version of their layout."""

from __future__ import annotations

from pgjobq.errors import SchemaTooNew

LAYOUT = 1


def check_layout(found: int, where: str, root: str) -> None:
    """Raise SchemaTooNew for a layout that a later version of pgjobq has made."""
    if found > LAYOUT:
        raise SchemaTooNew(
            f"Redis at {where}: what lies under {root} is of version {found}, this pgjobq knows {LAYOUT};"
            " upgrade pgjobq"
        )
