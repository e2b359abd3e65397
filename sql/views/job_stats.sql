-- job_stats: count the jobs of each queue and status, and show how long the oldest due job has been waiting.
--
-- The counts are exact while the table is small. In a table of more than 10,000 pages, running jobs are found through
-- claims, failed jobs through their index, and pending jobs through ready and scheduled; misplaced jobs (see
-- misplaced_jobs) are not counted then. More than 10,000 pending jobs are counted by their places, including those of
-- jobs that were cancelled since. Completed and cancelled jobs are one row without a queue, from the planner's
-- statistics. The column estimated marks the last two kinds of rows.
create or replace view job_stats as
with scope as materialized (
  -- 10,000 pages hold some hundred thousand jobs, which are counted in a few milliseconds.
  select pg_relation_size('jobs') <= 10000 * current_setting('block_size')::bigint as small,
         (select count(*) <= 10000
            from (select from ready union all select from scheduled limit 10001) as place) as few
), known (id) as (
  select ready.job_id from ready where (select scope.few and not scope.small from scope)
  union
  select scheduled.job_id from scheduled where (select scope.few and not scope.small from scope)
  union
  select unnest(claims.job_ids) from claims where (select not scope.small from scope)
)
select job.queue, job.status, count(*) as jobs, false as estimated,
       now() - min(job.due_at) filter (where job.due_at <= now()) as oldest_due_age
  from known
 cross join lateral (
   select jobs.queue, jobs.status,
          case jobs.status when 'pending' then greatest(jobs.execute_at, jobs.created_at) end as due_at
     from jobs
    where jobs.id = known.id and jobs.status in ('pending', 'running')
   offset 0) as job
 where job.status = 'running' or (select scope.few from scope)
 group by job.queue, job.status
union all
select place.queue, 'pending', count(*), true,
       (select now() - greatest(jobs.execute_at, jobs.created_at)
          from ready join jobs on jobs.id = ready.job_id
         where ready.queue = place.queue and ready.seq = min(place.seq))
  from (select ready.queue, ready.seq from ready
        union all
        select scheduled.queue, null from scheduled where scheduled.schedule_id is null) as place
 where not (select scope.few or scope.small from scope)
 group by place.queue
union all
select jobs.queue, jobs.status, count(*), false, null
  from jobs
 where jobs.failed_at is not null and not (select scope.small from scope)
 group by jobs.queue, jobs.status
union all
select jobs.queue, jobs.status, count(*), false,
       now() - min(greatest(jobs.execute_at, jobs.created_at))
         filter (where jobs.status = 'pending' and greatest(jobs.execute_at, jobs.created_at) <= now())
  from jobs
 where (select scope.small from scope)
 group by jobs.queue, jobs.status
union all
select null, 'completed',
       greatest(0, pg_class.reltuples::bigint - (select count(*) from ready) - (select count(scheduled.job_id) from scheduled)), true, null
  from pg_class
 where pg_class.oid = 'jobs'::regclass and not (select scope.small from scope);
comment on view job_stats is
  'The jobs by queue and status, and how long the oldest due job has been waiting; estimated if counting would scan a large table.';
