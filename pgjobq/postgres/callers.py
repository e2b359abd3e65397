"""Enqueue and read on the caller's own connection.

The jobs that are enqueued there commit or roll back with the caller's data, and what is read there is what the caller's
transaction sees. See drivers for the connections that can be used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.postgres import drivers
from pgjobq.postgres.adding import ADD, added, arguments_to_add, as_bytes, told
from pgjobq.postgres.rows import stored_job
from pgjobq.postgres.statements import JOB_COLUMNS

_ENQUEUE = """
select count(*)
  from (select array_agg(type order by place) as types, array_agg(data order by place) as datas,
               array_agg(priority order by place) as priorities,
               array_agg(coalesce(execute_at, clock_timestamp() + make_interval(secs => delay))
                         order by place) as times,
               array_agg(max_retries order by place) as retries, array_agg(queue order by place) as queues,
               array_agg(id order by place) as ids
          from rows from (json_to_recordset(convert_from(%b, 'UTF8')::json)
                          as (type text, data jsonb, priority integer, execute_at timestamptz, delay float8,
                              max_retries integer, queue text, id text)) with ordinality
            as job (type, data, priority, execute_at, delay, max_retries, queue, id, place)) as jobs,
       {schema}.enqueue_jobs(types, datas, priorities, times, retries, queues, ids)
"""
# The rows as JSON, and that in hexadecimal digits, because ASCII survives every setting of the connection.
_READ = f"""
select encode(convert_to(coalesce(json_agg(json_build_array({JOB_COLUMNS}) order by created_at desc, id desc),
                                  '[]')::text, 'UTF8'), 'hex')
  from """  # noqa: S608  # the columns are a constant
_GET = _READ + "{schema}.get_job(convert_from(%b, 'UTF8'))"
_LIST = (
    _READ
    + """json_to_record(convert_from(%b, 'UTF8')::json)
         as wanted (wanted_status text, at_most integer, wanted_queue text),
       {schema}.list_jobs(wanted_status, at_most, wanted_queue)"""
)


def enqueue(connection: Any, schema: str, jobs: Sequence[NewJob]) -> list[str]:
    """Add jobs in a sync connection's current transaction, change no other setting of it, and return their ids."""
    return _ids(jobs, drivers.execute(connection, schema, *_statement(jobs)))


async def enqueue_async(connection: Any, schema: str, jobs: Sequence[NewJob]) -> list[str]:
    """Do what enqueue does, on an async connection."""
    return _ids(jobs, await drivers.execute_async(connection, schema, *_statement(jobs)))


def get_job(connection: Any, schema: str, job_id: str) -> Job | None:
    """Return the job with this id as the connection's transaction sees it, or None."""
    found = _jobs(drivers.execute(connection, schema, _GET, [job_id.encode()]))
    return found[0] if found else None


async def get_job_async(connection: Any, schema: str, job_id: str) -> Job | None:
    """Do what get_job does, on an async connection."""
    found = _jobs(await drivers.execute_async(connection, schema, _GET, [job_id.encode()]))
    return found[0] if found else None


def list_jobs(
    connection: Any, schema: str, status: JobStatus | None, limit: int | None, queue: str | None
) -> list[Job]:
    """Return the jobs that the connection's transaction sees, newest first."""
    return _jobs(drivers.execute(connection, schema, _LIST, [_wanted(status, limit, queue)]))


async def list_jobs_async(
    connection: Any, schema: str, status: JobStatus | None, limit: int | None, queue: str | None
) -> list[Job]:
    """Do what list_jobs does, on an async connection."""
    return _jobs(await drivers.execute_async(connection, schema, _LIST, [_wanted(status, limit, queue)]))


def _statement(jobs: Sequence[NewJob]) -> tuple[str, list[bytes]]:
    return (ADD, arguments_to_add(jobs)) if told(jobs) else (_ENQUEUE, [as_bytes(jobs)])


def _ids(jobs: Sequence[NewJob], rows: drivers.Rows) -> list[str]:
    return added(rows) if told(jobs) else [job.id for job in jobs]


def _wanted(status: JobStatus | None, limit: int | None, queue: str | None) -> bytes:
    return json.dumps({"wanted_status": status, "at_most": limit, "wanted_queue": queue}).encode()


def _jobs(rows: drivers.Rows) -> list[Job]:
    return [stored_job(row) for row in json.loads(bytes.fromhex(rows[0][0]))]
