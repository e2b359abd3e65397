-- comments: what each table and column is, as `\d+` shows it.
--
-- Only where it differs: a comment on a table waits for a vacuum of it, and holds up the next one.
do $$
declare
  v record;
begin
  for v in
    select wanted.kind, wanted.name, wanted.comment
      from (values
        ('table',    'schema_version',         'Migrations of pgjobq applied to this schema, one row each.'),

        ('table',    'jobs',                   'One row a job, kept until pruned.  Insert freely; change a job through the functions.'),
        ('column',   'jobs.id',                'Unique name of the job; a UUID v7 unless given.'),
        ('column',   'jobs.queue',             'Workers serve queues by name.'),
        ('column',   'jobs.type',              'Names the handler that runs the job.'),
        ('column',   'jobs.data',              'The handler''s arguments: a JSON object.'),
        ('column',   'jobs.status',            'pending, running, completed, failed or cancelled.'),
        ('column',   'jobs.priority',          'Higher runs first.'),
        ('column',   'jobs.attempts',          'How many times the job was started.'),
        ('column',   'jobs.max_retries',       'Tries allowed after the first.'),
        ('column',   'jobs.execute_at',        'Not before this moment; null: at once.'),
        ('column',   'jobs.error',             'Why the last try failed: type, message, traceback.'),
        ('column',   'jobs.started_at',        'When the last try was claimed.'),
        ('column',   'jobs.finished_at',       'When the job was completed, failed or cancelled.'),
        ('column',   'jobs.failed_at',         'When the job failed for good; null in every other status.'),
        ('column',   'jobs.worker_id',         'The worker that runs or last ran the job.'),
        ('column',   'jobs.claim_id',          'The claim that the last start belongs to; null when it was ended by another than its worker.'),
        ('column',   'jobs.crashes',           'How many starts since the last clean end have ended because the worker died; they use up no try.'),
        ('column',   'jobs.expires_at',        'When the job may no longer be started: the claim cancels it then; null: never.'),

        ('table',    'pauses',                 'Private: the queues and types that are paused, see pause_queue and pause_type.'),
        ('column',   'pauses.paused_until',    'When the pause ends by itself; null: when it is resumed.'),
        ('column',   'pauses.paused_by',       'The setting pgjobq.actor of the session that paused it, or else its role.'),

        ('sequence', 'place_seq',              'The order of places in ready and scheduled.'),

        ('table',    'ready',                  'Private: places in line of the jobs that may be claimed.  Hints, checked against jobs when claimed.'),

        ('table',    'scheduled',              'Private: jobs that are not due yet.  Hints, like ready.'),

        ('table',    'workers',                'Worker processes, from register_worker to retire_worker or their rescue.'),
        ('column',   'workers.queues',         'The queues it serves; null: all.'),
        ('column',   'workers.heartbeat_at',   'Last heartbeat of a worker that cannot hold a session lock (behind a transaction pooler); null: alive while its lock is held.'),
        ('table',    'suspects',               'Private: workers that were seen without their lock or heartbeat, and when first.'),

        ('table',    'claims',                 'Private: one row a claim, so that a dead worker''s jobs are found without an index on jobs.'),
        ('sequence', 'claim_seq',              'The ids of claims, which never come again.'),

        ('table',    'doorbell',               'Private: workers that can be notified. Whether one sleeps now is told by locks.'),
        ('column',   'doorbell.alarm_seconds', 'The worker looks at what is scheduled this often by itself: no need to notify it of jobs due later.'),
        ('column',   'doorbell.channel',       'Where it listens.'),
        ('column',   'doorbell.passed_over',   'It was notified and did not answer: notify others first.'),
        ('sequence', 'doorbell_turn',          'Private: the worker that was notified last.'),

        ('table',    'floors',                 'Private: where claims of a lane (a queue and a priority) begin.'),
        ('column',   'floors.moved_at',        'When it last moved.')
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
