-- unserved_types: count the due jobs that no live worker takes, by queue and type.
--
-- No worker takes a job if none serves its queue, or if all that do leave its type to others (see leave_types). A
-- worker that has never called leave_types takes every type. This reads the first max_places places of each queue, but
-- none of a queue with a worker that takes every type.
create or replace function unserved_types(max_places integer default 10000)
  returns table (queue text, type text, jobs bigint)
  language sql
  stable
  security definer
  set search_path from current
  set jit = off
as $$
  with worker as materialized (
    select workers.queues, workers.left_types
      from workers
     where workers.id in (select live_workers())
  ), line as materialized (
    select line.queue
      from ready_queues() as line (queue)
     where not exists (select from worker
                        where worker.left_types = '{}' and (worker.queues is null or line.queue = any (worker.queues)))
  ), place as (
    select head.job_id
      from line
     cross join lateral (
       select ready.job_id from ready where ready.queue = line.queue
        order by ready.lane, ready.seq limit unserved_types.max_places) as head
    union
    (select scheduled.job_id from scheduled where scheduled.execute_at <= now()
      order by scheduled.execute_at limit unserved_types.max_places)
  )
  select job.queue, job.type, count(*)
    from place
   cross join lateral (
     select jobs.queue, jobs.type
       from jobs
      where jobs.id = place.job_id and jobs.status = 'pending' and (jobs.execute_at is null or jobs.execute_at <= now())
     offset 0) as job
   where not exists (select from worker
                      where (worker.queues is null or job.queue = any (worker.queues))
                        and job.type <> all (worker.left_types))
     and not exists (select from pauses
                      where (pauses.kind, pauses.name) in (('queue', job.queue), ('type', job.type))
                        and (pauses.paused_until is null or pauses.paused_until > now()))
   group by job.queue, job.type;
$$;
comment on function unserved_types(integer) is 'Count the due jobs that no live worker takes, by queue and type.';
