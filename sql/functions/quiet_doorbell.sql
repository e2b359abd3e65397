-- quiet_doorbell: a worker polls: it looks for jobs by itself every few milliseconds, and
-- nobody need be notified of those that it wants.
--
-- Answers whether it is the one on watch for its set of queues: others that poll beside it
-- should sleep again when there is too little for all.  Before it stops looking it calls
-- arm_doorbell, and does what that asks for.
create or replace function quiet_doorbell(worker_id integer, queues text[] default null,
                                          alarm_seconds double precision default 30, channel text default null)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  perform enter_doorbell(quiet_doorbell.worker_id, quiet_doorbell.queues, quiet_doorbell.alarm_seconds,
                         coalesce(quiet_doorbell.channel, current_schema()));
  perform hold_key('ready', quiet_doorbell.worker_id, true);
  perform hold_key('doorbell', quiet_doorbell.worker_id, false);
  -- One that is busy keeps nobody else asleep.
  return not holds_key('claims', quiet_doorbell.worker_id)
     and hold_key('ready', watch_key(quiet_doorbell.queues), true, wait => false);
end;
$$;
comment on function quiet_doorbell(integer, text[], double precision, text) is
  'A worker polls: do not notify anybody of jobs that it wants. Answers whether it is the one on watch.';
