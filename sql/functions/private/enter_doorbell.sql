-- enter_doorbell: register where a worker listens and what it wants; writes only changes.
--
-- Also takes the session's share of the key that says that somebody sleeps or polls.
create or replace function enter_doorbell(worker_id integer, queues text[], alarm_seconds double precision, channel text)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  if not exists (
    select from doorbell
     where doorbell.worker_id = enter_doorbell.worker_id
       and doorbell.queues is not distinct from enter_doorbell.queues
       and doorbell.alarm_seconds = enter_doorbell.alarm_seconds
       and doorbell.channel = enter_doorbell.channel)
  then
    -- The key of those who poll for other queues is not its any more.
    perform hold_key('ready', watch_key(doorbell.queues), false)
       from doorbell
      where doorbell.worker_id = enter_doorbell.worker_id;
    -- For this transaction alone: nobody needs the registration to survive a crash.
    perform set_config('synchronous_commit', 'off', true);
    insert into doorbell (worker_id, queues, alarm_seconds, channel)
    values (enter_doorbell.worker_id, enter_doorbell.queues, enter_doorbell.alarm_seconds, enter_doorbell.channel)
    on conflict on constraint doorbell_pkey
    do update set queues        = excluded.queues,
                  alarm_seconds = excluded.alarm_seconds,
                  channel       = excluded.channel;
  end if;
  if not exists (
    select from pg_locks
     where pg_locks.pid = pg_backend_pid()
       and pg_locks.locktype = 'advisory'
       and pg_locks.classid = 'doorbell'::regclass
       and pg_locks.objid = 0::oid
       and pg_locks.mode = 'ShareLock')
  then
    perform pg_advisory_lock_shared('doorbell'::regclass::oid::integer, 0);
  end if;
end;
$$;
comment on function enter_doorbell(integer, text[], double precision, text) is
  'Private: register where a worker listens and what it wants.';
