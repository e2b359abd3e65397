-- comments: describe each table and column, as `\d+` shows it.
--
-- A comment is written only if it differs, because that waits for a vacuum of the table, and blocks the next one.
do $$
declare
  v record;
begin
  for v in
    select wanted.kind, wanted.name, wanted.comment
      from (values
        ('table',    'schema_version',         'Migrations of pgjobq applied to this schema, one row each.'),

        ('table',    'jobs',                   'One row for each job, kept until it is pruned. Rows may be inserted directly; use the functions to change a job.'),
        ('column',   'jobs.id',                'The job''s unique name; a UUID version 7 unless one is given.'),
        ('column',   'jobs.queue',             'The name of the queue; workers serve queues by name.'),
        ('column',   'jobs.type',              'The name of the handler that runs the job.'),
        ('column',   'jobs.data',              'The handler''s arguments: a JSON object.'),
        ('column',   'jobs.status',            'pending, running, completed, failed or cancelled.'),
        ('column',   'jobs.priority',          'Higher runs first.'),
        ('column',   'jobs.attempts',          'How many times the job was started; a released start is not counted.'),
        ('column',   'jobs.max_retries',       'How many tries are allowed after the first.'),
        ('column',   'jobs.execute_at',        'The job does not start before this time; null: it may start at once.'),
        ('column',   'jobs.error',             'Why the last try failed: type, message and traceback. Or why the job was cancelled.'),
        ('column',   'jobs.started_at',        'When the job was last claimed.'),
        ('column',   'jobs.finished_at',       'When the job was completed, failed or cancelled.'),
        ('column',   'jobs.failed_at',         'When the job failed for good; null in every other status.'),
        ('column',   'jobs.worker_id',         'The worker that runs the job, or ran it last.'),
        ('column',   'jobs.claim_id',          'The claim that the last start belongs to; null if something other than its worker ended that start.'),
        ('column',   'jobs.crashes',           'How many workers have died while they held the job, since its handler last ended or it was retried. A crash uses up no try.'),
        ('column',   'jobs.unique_key',        'An enqueue with the same key may end in this job instead of a new one; null: the job has no key.'),
        ('column',   'jobs.expires_at',        'A claim after this time cancels the job and does not start it; null: never.'),

        ('table',    'results',                'Private: what the handlers of completed jobs returned; read it with job_result. A row counts while the job is completed by that claim.'),
        ('sequence', 'results_swept',          'Private: the page of results at which the next sweep begins.'),
        ('table',    'waits',                  'Private: the jobs for which sessions wait (see start_waiting). A row of a session without its key means nothing.'),
        ('column',   'waits.waiter',           'The pg_backend_pid() of the session that waits.'),
        ('table',    'pauses',                 'Private: the queues and types that are paused (see pause_queue and pause_type).'),
        ('column',   'pauses.paused_until',    'When the pause ends by itself; null: when it is resumed.'),
        ('column',   'pauses.paused_by',       'The setting pgjobq.actor of the session that paused it, or its role if that is not set.'),

        ('sequence', 'place_seq',              'Numbers the places in ready and scheduled in their order.'),

        ('table',    'unique_keys',            'Private: the job that last took each unique key. A row is a hint: the job it names decides whether the key is taken.'),
        ('sequence', 'unique_keys_swept',      'Private: the page of unique_keys at which the next sweep begins.'),
        ('table',    'ready',                  'Private: the places of jobs that may be claimed. A place is a hint, which a claim checks against jobs.'),

        ('table',    'scheduled',              'Private: the places of jobs that are not due yet, and of the next runs of schedules. A place is a hint, as in ready.'),

        ('column',   'scheduled.schedule_id',  'The schedule whose next run this is; null: the place is that of a job.'),

        ('table',    'workers',                'Worker processes, from register_worker until retire_worker or a rescue.'),
        ('column',   'workers.queues',         'The queues that the worker serves; null: all.'),
        ('column',   'workers.heartbeat_at',   'The last heartbeat of a worker that cannot hold a session lock (behind a transaction pooler); null: the worker is alive while it holds its lock.'),
        ('table',    'suspects',               'Private: workers that were seen without their lock or heartbeat, and when that was first seen.'),

        ('table',    'claims',                 'Private: one row for each claim, so that a dead worker''s jobs are found without an index on jobs.'),
        ('sequence', 'claim_seq',              'The ids of claims; no id is used twice.'),

        ('table',    'doorbell',               'Private: workers that can be notified. Advisory locks show whether a worker sleeps now.'),
        ('column',   'doorbell.alarm_seconds', 'How often, in seconds, the worker checks scheduled by itself; it is not notified of jobs that are due later than that.'),
        ('column',   'doorbell.channel',       'The channel on which the worker listens.'),
        ('column',   'doorbell.passed_over',   'The worker was notified and did not answer, so others are notified first.'),
        ('sequence', 'doorbell_turn',          'Private: the id of the worker that was notified last.'),

        ('table',    'floors',                 'Private: where claims of a lane (a queue and a priority) begin.'),
        ('column',   'floors.moved_at',        'When the floor last moved.')
      ) as wanted (kind, name, comment)
     where wanted.comment is distinct from
           case wanted.kind
             when 'column' then (select col_description(pg_attribute.attrelid, pg_attribute.attnum)
                                   from pg_attribute
                                  where pg_attribute.attrelid = split_part(wanted.name, '.', 1)::regclass
                                    and pg_attribute.attname = split_part(wanted.name, '.', 2))
             else obj_description(wanted.name::regclass, 'pg_class')
           end
  loop
    execute format('comment on %s %s is %L', v.kind, v.name, v.comment);
  end loop;
end;
$$;
