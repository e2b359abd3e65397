-- disarm_doorbell: a worker neither sleeps nor polls: it has no room for more jobs.
create or replace function disarm_doorbell(worker_id integer)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  perform pg_advisory_unlock(pg_locks.classid::bigint::integer, disarm_doorbell.worker_id)
     from pg_locks
    where pg_locks.pid = pg_backend_pid()
      and pg_locks.locktype = 'advisory'
      and pg_locks.classid in ('doorbell'::regclass, 'ready'::regclass, 'claims'::regclass)
      and pg_locks.objid = disarm_doorbell.worker_id::bigint::oid
      and pg_locks.mode = 'ExclusiveLock';
  perform hold_key('ready', watch_key(doorbell.queues), false)
     from doorbell
    where doorbell.worker_id = disarm_doorbell.worker_id;
  perform pg_advisory_unlock_shared('doorbell'::regclass::oid::integer, 0)
     from pg_locks
    where pg_locks.pid = pg_backend_pid()
      and pg_locks.locktype = 'advisory'
      and pg_locks.classid = 'doorbell'::regclass
      and pg_locks.objid = 0::oid
      and pg_locks.mode = 'ShareLock';
end;
$$;
comment on function disarm_doorbell(integer) is
  'A worker neither sleeps nor polls: do not notify it, and do not count on it.';
