-- cancel_jobs: cancel one batch of pending and running jobs, oldest first: of a queue, a type, a unique key or an age.
--
-- At least one of the four is needed, and a job must match all that are given. It waits for nothing: it skips jobs that
-- another transaction holds, such as a claim or a settle. The workers of running jobs are notified, and their tries are
-- recorded, as by cancel_job. All batches of one call by a program are one row of the view actions.
--
--   max_jobs   the largest number of jobs, 1 to 10000, because a batch keeps its rows locked until it commits
--   reason     why, kept in the jobs' error; null: the error stays as it is
--   cancelled  how many jobs were cancelled; fewer than max_jobs means that no more are left, but for those skipped
--   reached_*  where the batch ended. To cancel the next batch, call the function in a new transaction and pass these as
--              after_created_at and after_id, so that it does not walk the same jobs again.
create or replace function cancel_jobs(queue text default null, type text default null, unique_key text default null,
                                       created_before timestamptz default null, max_jobs integer default 1000,
                                       reason text default null,
                                       after_created_at timestamptz default null, after_id text default null,
                                       out cancelled integer, out reached_created_at timestamptz, out reached_id text)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set enable_sort = off
as $$ #variable_conflict use_column
declare
  v_workers integer[]; v_tries bigint; v_ids text[];
begin
  if num_nonnulls(cancel_jobs.queue, cancel_jobs.type, cancel_jobs.unique_key, cancel_jobs.created_before) = 0 then
    raise exception using errcode = 'JQ001',
      message = 'queue: queue, type, unique_key and created_before are all null',
      hint    = 'Say which jobs to cancel; to cancel all jobs, use created_before => now().';
  elsif not coalesce(cancel_jobs.max_jobs between 1 and 10000, false) then
    raise exception using errcode = 'JQ001',
      message = format('max_jobs: %s is not a number from 1 to 10000', coalesce(cancel_jobs.max_jobs::text, 'null')),
      hint    = 'Call the function again for more jobs.';
  end if;
  with wanted as materialized (
    select jobs.created_at, jobs.id, case when jobs.status = 'running' then jobs.worker_id end as worker_id,
           case when jobs.status = 'running' then jobs end as run
      from jobs
     where (jobs.created_at, jobs.id)
           > (coalesce(cancel_jobs.after_created_at, '-infinity'), coalesce(cancel_jobs.after_id collate "C", ''))
       and (cancel_jobs.created_before is null or jobs.created_at < cancel_jobs.created_before)
       and jobs.status in ('pending', 'running')
       and (cancel_jobs.queue is null or jobs.queue = cancel_jobs.queue collate "C")
       and (cancel_jobs.type is null or jobs.type = cancel_jobs.type collate "C")
       and (cancel_jobs.unique_key is null or jobs.unique_key = cancel_jobs.unique_key collate "C")
     order by jobs.created_at, jobs.id
     limit cancel_jobs.max_jobs
       for no key update skip locked
  ), noted as materialized (
    select note_attempt(wanted.run, 'cancelled', cancel_jobs.reason) from wanted where (wanted.run).id is not null
  ), done as (
    update jobs
       set status = 'cancelled', error = coalesce(cancel_jobs.reason, jobs.error), claim_id = null,
           finished_at = clock_timestamp(), updated_at = clock_timestamp()
     where jobs.id = any (array(select wanted.id from wanted))
    returning jobs.id
  )
  select count(*) over (), wanted.created_at, wanted.id,
         (select array_agg(distinct runs.worker_id) from wanted as runs where runs.worker_id is not null),
         (select count(*) from noted), array(select done.id from done)
    from wanted
   order by wanted.created_at desc, wanted.id desc
   limit 1
    into cancelled, reached_created_at, reached_id, v_workers, v_tries, v_ids;
  cancelled := coalesce(cancelled, 0);
  if cancelled > 0 then
    perform note_action('cancel', filter_text(cancel_jobs.queue, cancel_jobs.type, cancel_jobs.unique_key, null, null, null,
                        cancel_jobs.created_before), cancel_jobs.reason, cancelled, cancel_jobs.after_id is not null);
  end if;
  perform pg_notify(cancel_channel(worker.id), '') from unnest(v_workers) as worker (id);
  perform notify_waiters(v_ids);
end;
$$;
comment on function cancel_jobs(text, text, text, timestamptz, integer, text, timestamptz, text) is
  'Cancel one batch of pending and running jobs: of a queue, a type, a unique key or an age.';
