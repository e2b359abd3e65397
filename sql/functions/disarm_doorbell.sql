-- disarm_doorbell: a worker neither sleeps nor polls: it has no room for more jobs, or leaves.
--
-- When it polled, there may be enqueues that counted on it and are not committed yet: all who sleep
-- and want some of its queues are asked to fall asleep anew, by all the steps.
create or replace function disarm_doorbell(worker_id integer)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_polled constant boolean := holds_key('ready', disarm_doorbell.worker_id);
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
  if v_polled then
    perform pg_notify(sleeper.channel || '!', '')
       from doorbell as sleeper
       left join doorbell as own on own.worker_id = disarm_doorbell.worker_id
      where sleeper.worker_id <> disarm_doorbell.worker_id
        and (sleeper.queues is null or own.queues is null or sleeper.queues && own.queues)
        and is_held('doorbell', sleeper.worker_id);
  end if;
end;
$$;
comment on function disarm_doorbell(integer) is
  'A worker neither sleeps nor polls: do not notify it, and do not count on it.';
