-- comments_kept: describe the tables of what jobs and operators leave behind, as comments.sql does for the others.
do $$
declare
  v record;
begin
  for v in
    select wanted.kind, wanted.name, wanted.comment
      from (values
        ('column',   'jobs.fingerprint',    'What the failure of a failed job is grouped by (see the view failures); null: it is computed when it is needed.'),

        ('table',    'attempts',            'Private: the tries that did not succeed (see list_attempts), kept as long as their jobs.'),
        ('column',   'attempts.attempt',    'The job''s attempts during the try.'),
        ('column',   'attempts.worker',     'The name of the worker that ran the try.'),
        ('column',   'attempts.outcome',    'raised, timed out, worker died, cancelled or released.'),
        ('sequence', 'attempts_swept',      'Private: the page of attempts at which the next sweep begins.'),

        ('table',    'progress',            'Private: what running jobs have reported with set_progress (see the view job_progress). Empty after a crash of the server.'),
        ('column',   'progress.claim_id',   'The claim of the start that reported it.'),
        ('sequence', 'progress_swept',      'Private: the page of progress at which the next sweep begins.'),

        ('table',    'log_lines',           'Private: what handlers with capture_logs have logged (see the view job_logs), kept as long as their jobs.'),
        ('column',   'log_lines.seq',       'The number of the line in its start.'),
        ('column',   'log_lines.added_at',  'When it was written; logged_at is by the clock of the worker.'),
        ('sequence', 'log_lines_swept',     'Private: the page of log_lines at which the next sweep begins.'),

        ('table',    'action_log',          'Private: what operators did (see the view actions).'),
        ('column',   'action_log.role',     'The role of the session.'),
        ('column',   'action_log.actor',    'The setting pgjobq.actor of the session, where an application puts the name of its own user.'),
        ('column',   'action_log.jobs',     'How many jobs it changed; null if that does not apply.')
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
