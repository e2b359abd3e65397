"""Keep the results of jobs."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, delete, insert

from pgjobq.storage.sqlalchemy.conditions import chunks
from pgjobq.storage.sqlalchemy.table import results

_DELETE = delete(results).where(results.c.job_id.in_(bindparam("ids", expanding=True)))


def keep_results(conn: Connection, found: Mapping[str, str | None], claim_id: int | None) -> None:
    """Keep these results, by id and as JSON, for starts of this claim, in place of those of other starts."""
    for some in chunks(sorted(found)):
        conn.execute(_DELETE, {"ids": some})
        rows = [{"job_id": id_, "claim_id": claim_id, "result": found[id_]} for id_ in some if found[id_] is not None]
        if rows:
            conn.execute(insert(results), rows)
