-- oldest_jobs: return the oldest due job of each queue, and say why it is not running (see why_job).
--
-- It returns at most max_queues jobs, those that have been due longest. It finds a job by its place, and looks at the
-- first 100 places of each lane, because the jobs of these may have been cancelled; and at the first 10,000 due places
-- in scheduled. A job that has lost its place is not found, see misplaced_jobs.
create or replace function oldest_jobs(max_queues integer default 20)
  returns table (queue text, job_id text, due_at timestamptz, why text)
  language sql
  volatile
  security definer
  set search_path from current
  set jit = off
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off
  set enable_bitmapscan = off
as $$
  with place as materialized (
    select head.job_id
      from ready_lanes() as line
     cross join lateral (
       select ready.job_id
         from ready
        where ready.queue = line.queue and ready.lane = line.lane
          and ready.seq >= coalesce((select max(floors.seq) from floors
                                      where floors.queue = line.queue and floors.lane = line.lane), 0)
        order by ready.seq
        limit 100) as head
    union all
    (select scheduled.job_id
       from scheduled
      where scheduled.execute_at <= statement_timestamp()
      order by scheduled.execute_at
      limit 10000)
  ), due as (
    select distinct on (job.queue) job.queue, job.id, job.due_at
      from place
     cross join lateral (
       select jobs.queue, jobs.id, greatest(jobs.execute_at, jobs.created_at) as due_at
         from jobs
        where jobs.id = place.job_id and jobs.status = 'pending'
          and (jobs.execute_at is null or jobs.execute_at <= statement_timestamp())
       offset 0) as job
     order by job.queue, job.due_at, job.id
  ), oldest as materialized (
    select due.* from due order by due.due_at, due.queue limit oldest_jobs.max_queues
  )
  select oldest.queue, oldest.id, oldest.due_at, why_job(oldest.id) from oldest order by oldest.due_at, oldest.queue;
$$;
comment on function oldest_jobs(integer) is 'Return the oldest due job of each queue, and say why it is not running.';
