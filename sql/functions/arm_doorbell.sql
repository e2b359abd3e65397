-- arm_doorbell: a worker falls asleep: it wants to be notified of new jobs.
--
-- Call it on the session that listens; the registration falls with that.  The worker promises
-- to look at what is scheduled by itself, at least every alarm_seconds.  channel: where it
-- listens, null for the channel that bears the schema's name.  Not yet safe to sleep when this
-- returns: the worker must wait for the transactions that open_enqueues() shows, for they may
-- have looked before it was registered, then claim once more.
create or replace function arm_doorbell(worker_id integer, queues text[] default null,
                                        alarm_seconds double precision default 30, channel text default null)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  perform enter_doorbell(arm_doorbell.worker_id, arm_doorbell.queues, arm_doorbell.alarm_seconds,
                         coalesce(arm_doorbell.channel, current_schema()));
  -- First asleep, then no longer polling: an enqueue that looks meanwhile sees one or the other.
  perform hold_key('doorbell', arm_doorbell.worker_id, true);
  perform hold_key('ready', arm_doorbell.worker_id, false);
  perform hold_key('ready', watch_key(arm_doorbell.queues), false);
end;
$$;
comment on function arm_doorbell(integer, text[], double precision, text) is
  'A worker falls asleep: it wants to be notified of new jobs.';
