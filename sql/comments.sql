-- comments: what each table and column is, as `\d+` shows it.  Re-applied on every upgrade.

comment on table schema_version is 'Migrations of pgjobq applied to this schema, one row each.';

comment on table  jobs             is 'One row a job, kept until pruned.  Insert freely; change a job through the functions.';
comment on column jobs.id          is 'Unique name of the job; a UUID v7 unless given.';
comment on column jobs.queue       is 'Workers serve queues by name.';
comment on column jobs.type        is 'Names the handler that runs the job.';
comment on column jobs.data        is 'The handler''s arguments: a JSON object.';
comment on column jobs.status      is 'pending, running, completed, failed or cancelled.';
comment on column jobs.priority    is 'Higher runs first.';
comment on column jobs.attempts    is 'How many times the job was started.';
comment on column jobs.max_retries is 'Tries allowed after the first.';
comment on column jobs.execute_at  is 'Not before this moment; null: at once.';
comment on column jobs.error       is 'Why the last try failed: type, message, traceback.';
comment on column jobs.started_at  is 'When the last try was claimed.';
comment on column jobs.finished_at is 'When the job was completed, failed or cancelled.';
comment on column jobs.failed_at   is 'When the job failed for good; null in every other status.';
comment on column jobs.worker_id   is 'The worker that runs or last ran the job.';

comment on sequence place_seq is 'The order of places in ready and scheduled.';

comment on table ready is 'Private: places in line of the jobs that may be claimed.  Hints, checked against jobs when claimed.';

comment on table scheduled is 'Private: jobs that are not due yet.  Hints, like ready.';

comment on table  workers              is 'Worker processes, from register_worker to retire_worker or their rescue.';
comment on column workers.queues       is 'The queues it serves; null: all.';
comment on column workers.heartbeat_at is 'Last heartbeat of a worker that cannot hold a session lock (behind a transaction pooler); null: alive while its lock is held.';
comment on column workers.suspected_at is 'When it was first seen without its lock or heartbeat.';

comment on table claims is 'Private: one row a claimed batch, so that a dead worker''s jobs are found without an index on jobs.';

comment on table  doorbell               is 'Private: workers that can be notified. Whether one sleeps now is told by locks.';
comment on column doorbell.alarm_seconds is 'The worker looks at what is scheduled this often by itself: no need to ring for jobs due later.';
comment on column doorbell.channel       is 'Where it listens.';

comment on table  floors                 is 'Private: where claims of a lane (queue and priority) begin.';
comment on table  horizon                is 'Private: how far floors may move.';
