"""Adding jobs that have a unique key or an expiry, by add_jobs, on any connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pgjobq.errors import InvalidJob
from pgjobq.ids import JobId
from pgjobq.models import NewJob
from pgjobq.unique import OPTIONS

# Values of bytes go in, and ASCII comes back: no encoding, adapter or setting of the connection changes them.
ADD = """
select encode(convert_to(json_agg(json_build_array(added.id, added.outcome) order by added.place)::text, 'UTF8'), 'hex')
  from (select array_agg(type order by place) as types, array_agg(data order by place) as datas,
               array_agg(priority order by place) as priorities,
               array_agg(coalesce(execute_at, clock_timestamp() + make_interval(secs => delay))
                         order by place) as times,
               array_agg(max_retries order by place) as retries, array_agg(queue order by place) as queues,
               array_agg(id order by place) as ids, array_agg(expires_at order by place) as expiries,
               case when bool_or(unique_key is not null) then array_agg(unique_key order by place) end as keys
          from rows from (json_to_recordset(convert_from(%b, 'UTF8')::json)
                          as (type text, data jsonb, priority integer, execute_at timestamptz, delay float8,
                              max_retries integer, queue text, id text, unique_key text, expires_at timestamptz))
               with ordinality as job (type, data, priority, execute_at, delay, max_retries, queue, id, unique_key,
                                       expires_at, place)) as jobs,
       json_to_record(convert_from(%b, 'UTF8')::json)
         as option (unique_while text, unique_for float8, on_conflict text, debounce_ceiling float8),
       {schema}.add_jobs(types, datas, priorities, times, retries, queues, ids, keys, option.unique_while,
                         make_interval(secs => option.unique_for), option.on_conflict,
                         make_interval(secs => option.debounce_ceiling), expiries)
         with ordinality as added (id, outcome, place)
"""


def told(jobs: Sequence[NewJob]) -> bool:
    """Whether one of these jobs has a unique key or an expiry."""
    return any(job.unique_key is not None or job.expires_at is not None for job in jobs)


def arguments_to_add(jobs: Sequence[NewJob]) -> list[bytes]:
    """The arguments of ADD. Raises InvalidJob for keys with different options."""
    given = {tuple(getattr(job, name) for name in OPTIONS) for job in jobs if job.unique_key is not None}
    if len(given) > 1:
        raise InvalidJob(
            f"{', '.join(OPTIONS)}: differ between jobs of one call; enqueue these jobs in calls of their own",
            field="unique_key",
        )
    options = dict(zip(OPTIONS, given.pop(), strict=True)) if given else {}
    return [as_bytes(jobs), json.dumps(options).encode()]


def as_bytes(jobs: Sequence[NewJob]) -> bytes:
    """The jobs as a JSON array."""
    return f"[{','.join(map(_object, jobs))}]".encode()


def added(rows: Sequence[Sequence[Any]]) -> list[str]:
    """The ids that ADD returned, with their outcomes, in order."""
    return [JobId.with_outcome(job_id, outcome) for job_id, outcome in json.loads(bytes.fromhex(rows[0][0]))]


def _object(job: NewJob) -> str:
    values: dict[str, Any] = {"type": job.type, "queue": job.queue, "id": job.id}
    values |= {"priority": job.priority, "max_retries": job.max_retries}
    for name in ("execute_at", "expires_at"):
        if (moment := getattr(job, name)) is not None:
            values[name] = moment.isoformat()
    if job.delay is not None:
        values["delay"] = float(job.delay)
    if job.unique_key is not None:
        values["unique_key"] = job.unique_key
    return f'{json.dumps(values, ensure_ascii=False)[:-1]}, "data": {job.json}}}'
