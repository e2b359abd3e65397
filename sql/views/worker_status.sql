-- worker_status: show the workers, whether they are alive and asleep, and how many jobs each holds.
create or replace view worker_status as
select workers.id, workers.name, workers.queues, workers.started_at,
       workers.id in (select live_workers()) as alive,
       workers.id in (select live_workers('asleep')) as asleep,
       (select count(*)
          from claims
         cross join lateral unnest(claims.job_ids) as held (id)
         cross join lateral (
           select from jobs
            where jobs.id = held.id and jobs.status = 'running' and jobs.claim_id = claims.id
           offset 0) as job
         where claims.worker_id = workers.id) as running
  from workers;
comment on view worker_status is 'The workers, whether they are alive and asleep, and how many jobs each holds.';
