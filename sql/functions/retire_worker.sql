-- retire_worker: a worker leaves in good order.
--
-- Jobs that it still holds go back in line at once.  Call it on the connection that
-- registered it: the lock is let go with the last statement.
create or replace function retire_worker(worker_id integer)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  perform disarm_doorbell(retire_worker.worker_id);
  perform give_away_jobs(retire_worker.worker_id);
  perform pg_advisory_unlock(pg_locks.classid::bigint::integer, pg_locks.objid::bigint::integer)
     from pg_locks
    where pg_locks.locktype = 'advisory'
      and pg_locks.classid = 'workers'::regclass::oid
      and pg_locks.objid = retire_worker.worker_id::bigint::oid
      and pg_locks.objsubid = 2
      and pg_locks.pid = pg_backend_pid();
end;
$$;
comment on function retire_worker(integer) is
  'A worker leaves in good order: jobs that it still holds go back in line.';
