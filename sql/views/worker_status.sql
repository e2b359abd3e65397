-- worker_status: the workers, whether they live and sleep, and how many jobs each holds.
create or replace view worker_status as
select workers.id, workers.name, workers.queues, workers.started_at,
       workers.id in (select live_workers()) as alive,
       workers.id in (
         select pg_locks.objid::bigint::integer
           from pg_locks
          where pg_locks.locktype = 'advisory'
            and pg_locks.database = (select pg_database.oid from pg_database where pg_database.datname = current_database())
            and pg_locks.classid = 'doorbell'::regclass
            and pg_locks.mode = 'ExclusiveLock'
            and pg_locks.granted) as asleep,
       (select count(*)
          from claims
         cross join lateral unnest(claims.job_ids) as held (id)
         cross join lateral (
           select from jobs
            where jobs.id = held.id and jobs.status = 'running' and jobs.worker_id = workers.id
           offset 0) as job
         where claims.worker_id = workers.id) as running
  from workers;
comment on view worker_status is 'The workers, whether they live and sleep, and how many jobs each holds.';
