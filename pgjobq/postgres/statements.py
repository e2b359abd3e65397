"""The statements of PostgresStorage: one call of a SQL function each."""

from __future__ import annotations

from psycopg import sql

JOB_COLUMNS = (
    "id, queue, type, data::text, status, priority, attempts, max_retries, execute_at, error, created_at, updated_at,"
    " started_at, finished_at, failed_at, worker_id, claim_id, crashes"
)

# %b: lists go in the binary format, which costs a quarter of the text, on either side.
_TEXTS = {
    "enqueue_job": """select {schema}.enqueue_job(%s, %s::jsonb, %s, coalesce(%s::timestamptz,
        clock_timestamp() + make_interval(secs => %s)), %s, %s, %s)""",
    "enqueue_jobs": """select {schema}.enqueue_jobs(%b::text[], %b::text[]::jsonb[], %b::integer[],
        array(select coalesce(given.at, clock_timestamp() + make_interval(secs => given.delay))
                from unnest(%b::timestamptz[], %b::float8[]) as given (at, delay)),
        %b::integer[], %b::text[], %b::text[])""",
    # A last row, without an id, says what the claim passed over: its condition is evaluated when the claim has ended.
    "claim_jobs": """select claim_id, id, queue, type, data::text, priority, attempts, max_retries, execute_at, error,
        created_at, started_at, crashes from {schema}.claim_jobs(%s, %b::text[], %s, %b::text[], %s)
        union all
        select null, null, current_setting('pgjobq.skipped'), null, null, null, null, null, null, null, null, null, null
         where current_setting('pgjobq.skipped', true) <> ''""",
    "complete_jobs": "select {schema}.complete_jobs(%s, %b::text[], %b::bigint[], %b::bigint[], %s)",
    "fail_job": "select {schema}.fail_job(%s, %s, %s)",
    "retry_held_job": "select {schema}.retry_job(%s, %s, %s, %s)",
    "retry_job": "select {schema}.retry_job(%s, %s)",
    "release_jobs": "select {schema}.release_jobs(%b::text[], %b::bigint[], %s)",
    "release_unknown_jobs": "select {schema}.release_unknown_jobs(%s, %b::bigint[])",
    "held_jobs": "select {schema}.held_jobs(%b::text[])",
    "lost_jobs": "select {schema}.lost_jobs(%b::text[], %b::bigint[])",
    "cancel_job": "select {schema}.cancel_job(%s, %s)",
    "cancel_jobs": """select cancelled, reached_created_at::text, reached_id
        from {schema}.cancel_jobs(%s, %s, %s::timestamptz, %s, %s, %s::timestamptz, %s)""",
    "prune_jobs": """select pruned, reached_created_at::text, reached_id
        from {schema}.prune_jobs(%s, %s::text[], %s, %s::timestamptz, %s, %s::text[])""",
    "watch_workers": """select rescued, dead, watched, pollers, waiting, unknown
        from {schema}.watch_workers(%s, %s::text[], %s::integer[], make_interval(secs => %s), %s::bigint[])""",
    "register_worker": "select {schema}.register_worker(%s, %s::text[], true)",
    "heartbeat_worker": "select {schema}.heartbeat_worker(%s)",
    "retire_worker": "select {schema}.retire_worker(%s)",
    "advance_floors": """select safe, open::text[], moved
        from {schema}.advance_floors(%s, %s::xid8[], %s::text[], %s::integer[])""",
    "leave_types": "select {schema}.leave_types(%s, %s::text[])",
    "unserved_types": "select queue, type, jobs from {schema}.unserved_types()",
    "repair_jobs": "select placed, given_back, failed, held from {schema}.repair_jobs(%s)",
    "call_workers": "select {schema}.call_workers(%s, %s)",
    "get_job": "select {columns} from {schema}.get_job(%s)",
    "list_jobs": "select {columns} from {schema}.list_jobs(%s, %s, %s)",
    "export_jobs": "select {columns} from {schema}.export_jobs(%s, %s, %s)",
    "import_jobs": "select {schema}.import_jobs(%s::jsonb)",
    "count_jobs": "select status, jobs from {schema}.count_jobs()",
    "set_worker_state": """select open::text[], pollers, on_watch
        from {schema}.set_worker_state(%s, %s, %s, %s::text[], %s, %s)""",
    "still_open": "select {schema}.open_transactions(null, %s::xid8[])::text[]",
    "notifiers_waiting": "select {schema}.notifiers_waiting()",
    "next_due": "select {schema}.next_due()",
    "job_stats": """select queue, status, jobs, estimated, extract(epoch from oldest_due_age)::float8
        from {schema}.job_stats""",
    "worker_status": """select id, name, queues, started_at, alive, asleep, running
        from {schema}.worker_status order by id""",
}


def statements(schema: str) -> dict[str, bytes]:
    """The statements for a schema, by the name of the function each calls."""
    parts = {"schema": placeable(schema), "columns": sql.SQL(JOB_COLUMNS)}
    return {key: sql.SQL(text).format(**parts).as_bytes(None) for key, text in _TEXTS.items()}


def placeable(*names: str) -> sql.Composable:
    """The names as a quoted identifier for a statement with placeholders, where a % in them would begin one."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))
