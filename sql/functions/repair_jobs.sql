-- repair_jobs: repair up to max_jobs of the jobs that misplaced_jobs finds, and schedules that have lost their place.
--
-- It is safe while workers run, because it waits for nothing, and gives no second place to a job that is claimed,
-- settled or placed meanwhile. A worker that still runs a job that was given back or failed has lost it.
--
--   placed      pending jobs that now have a place in line, in the order of their due times
--   given_back  running jobs that are pending again
--   failed      running jobs that failed because their tries are used up
--   held        jobs that another transaction holds or has just changed; a later call repairs them
--
-- If the four numbers add up to max_jobs, there may be more jobs: call it again in a new transaction.
create or replace function repair_jobs(max_jobs integer default 10000, out placed bigint, out given_back bigint,
                                       out failed bigint, out held bigint)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_nestloop = off  -- join the jobs by a hash, even if the planner expects few
as $$
#variable_conflict use_column
declare
  v_now constant timestamptz := clock_timestamp();
  v_ids text[] collate "C";
begin
  -- Every job is updated, because its new version tells a concurrent call that it was repaired.
  with found as materialized (
    select misplaced.id, misplaced.status, misplaced.version from misplaced_jobs(repair_jobs.max_jobs) as misplaced
  ), job as materialized (
    select found.id, found.status, job.attempts > job.max_retries as spent
      from found
     cross join lateral (
       select jobs.ctid as version, jobs.attempts, jobs.max_retries
         from jobs
        where jobs.id = found.id
          for no key update skip locked) as job
     where job.version = found.version
  ), repaired as (
    update jobs
       set updated_at  = clock_timestamp(),
           claim_id    = null,
           status      = case when job.status = 'running' and job.spent then 'failed' else 'pending' end,
           error       = case when job.status = 'pending' then jobs.error
                              else format('no claim held this job while it was running (try %s of %s)',
                                          jobs.attempts, jobs.max_retries + 1) end,
           failed_at   = case when job.status = 'running' and job.spent then clock_timestamp() end,
           finished_at = case when job.status = 'running' and job.spent then clock_timestamp() end
      from job
     where jobs.id = any (array(select job.id from job)) and jobs.id = job.id
    returning jobs.id, job.status, jobs.status = 'failed' as fails
  )
  select array_agg(repaired.id) filter (where repaired.status = 'pending'),
         count(*) filter (where repaired.status = 'pending'),
         count(*) filter (where repaired.status = 'running' and not repaired.fails),
         count(*) filter (where repaired.fails), (select count(*) from found) - count(*)
    from repaired
    into v_ids, repair_jobs.placed, repair_jobs.given_back, repair_jobs.failed, repair_jobs.held;
  -- The trigger has given the jobs that were running their places.
  insert into scheduled (execute_at, queue, lane, job_id)
  select jobs.execute_at, jobs.queue, - jobs.priority::bigint, jobs.id
    from jobs
   where jobs.id = any (v_ids) and jobs.execute_at > v_now
   order by jobs.execute_at, jobs.id;
  insert into ready (queue, lane, job_id)
  select jobs.queue, - jobs.priority::bigint, jobs.id
    from jobs
   where jobs.id = any (v_ids) and (jobs.execute_at is null or jobs.execute_at <= v_now)
   order by coalesce(jobs.execute_at, jobs.created_at), jobs.id;
  perform notify_workers(array[jobs.queue], min(coalesce(jobs.execute_at, '-infinity')))
     from jobs
    where jobs.id = any (v_ids)
    group by jobs.queue;
  perform replace_schedules();
end;
$$;
comment on function repair_jobs(integer) is
  'Give misplaced pending jobs their place in line, and make running jobs that no claim holds pending again.';
