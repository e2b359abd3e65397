-- roles: create the roles, and grant what each of them may do.
--
-- All rights are on functions and views. Only the owner has rights on tables, except that every role may read
-- schema_version. Roles belong to the whole cluster, and remain when the schema is dropped.
--
--   pgjobq_enqueue  may enqueue, and sees nothing
--   pgjobq_work     may also read, claim, settle, rescue, repair, prune and create schedules: what a worker needs
--   pgjobq_read     may read jobs, their attempts, progress, logs, failures, actions, schedules, workers and statistics, and wait for jobs
--   pgjobq_admin    may do all of this, and also cancel, edit, retry by a filter and import jobs, pause queues, and
--                   change schedules
do $$
begin
  if not exists (select from pg_roles where rolname = 'pgjobq_enqueue') then create role pgjobq_enqueue nologin; end if;
  if not exists (select from pg_roles where rolname = 'pgjobq_work')    then create role pgjobq_work    nologin; end if;
  if not exists (select from pg_roles where rolname = 'pgjobq_read')    then create role pgjobq_read    nologin; end if;
  if not exists (select from pg_roles where rolname = 'pgjobq_admin')   then create role pgjobq_admin   nologin; end if;
exception
  when insufficient_privilege then
    raise notice 'roles pgjobq_enqueue, pgjobq_work, pgjobq_read and pgjobq_admin do not all exist, and role % may not create them. Ask an administrator to create them, then migrate again.', quote_ident(current_user);
  when duplicate_object or unique_violation then
    null;  -- an installer in another database has just created them
end;
$$;

-- These lines name the functions that each role may call. Only the owner may call a function that they do not name,
-- because ours.sql has revoked the rights of PUBLIC. pgjobq/postgres/rights.py reads them for its error messages.
do $$
declare
  v_grant text;
begin
  if (select count(*) from pg_roles where rolname in ('pgjobq_enqueue', 'pgjobq_work', 'pgjobq_read', 'pgjobq_admin')) < 4 then
    return;
  end if;
  execute format('grant usage on schema %I to pgjobq_enqueue, pgjobq_work, pgjobq_read, pgjobq_admin', current_schema());
  for v_grant in
    select format('grant execute on function %s to %s', pg_proc.oid::regprocedure, may.roles)
      from (values
        ('pgjobq_enqueue, pgjobq_work, pgjobq_admin', '{new_job_id, enqueue_job, enqueue_jobs, add_job, add_jobs}'::name[]),
        ('pgjobq_work, pgjobq_admin',
         '{cancel_channel, claim_jobs, complete_jobs, fail_job, retry_job, release_jobs, promote_jobs, rescue_jobs, register_worker,
           retire_worker, heartbeat_worker, leave_types, held_jobs, lost_jobs, release_unknown_jobs, set_worker_state, call_workers, watch_workers,
           notifiers_waiting, advance_floors, prune_jobs, repair_jobs, create_schedule, declare_schedules, set_progress, add_log_lines}'),
        ('pgjobq_read, pgjobq_work, pgjobq_admin', '{get_job, list_jobs, count_jobs, live_workers, next_due, queue_names, export_jobs, unserved_types,
          misplaced_jobs, next_tick, next_ticks, get_schedule, list_schedules, declared_schedules, list_attempts, error_line, error_class, fingerprint,
          job_result, wait_for_job, wait_for_jobs, ended_jobs, stop_waiting, open_transactions,
          why_job, oldest_jobs}'),
        ('pgjobq_admin', '{cancel_job, cancel_jobs, edit_job, retry_jobs, import_jobs, pause_queue, resume_queue, pause_type, resume_type,
                          enable_schedule, delete_schedule, run_schedule, backfill_schedule, move_schedule}')
      ) as may (roles, names)
      join pg_proc on pg_proc.proname = any (may.names)
     where pg_proc.pronamespace = quote_ident(current_schema())::regnamespace
       and age(pg_proc.xmin) <= 0  -- written by this run
  loop
    execute v_grant;
  end loop;
  grant select on schema_version
     to pgjobq_enqueue, pgjobq_work, pgjobq_read, pgjobq_admin;
  grant select on job_stats, worker_status, queues, paused_types, failures, actions, job_progress, job_logs
     to pgjobq_read, pgjobq_work, pgjobq_admin;
  -- This does not apply to a user's own function.
  if exists (select from pg_proc
              where pg_proc.oid = to_regprocedure('public.enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz)')
                and age(pg_proc.xmin) <= 0) then
    grant execute on function public.enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz)
       to pgjobq_enqueue, pgjobq_work, pgjobq_admin;
  end if;
exception when insufficient_privilege then
  raise notice 'the rights of the pgjobq roles were not granted: %', sqlerrm;
end;
$$;
