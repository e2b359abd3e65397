-- arm_doorbell: register a worker as asleep: wants to be notified of new jobs.
--
-- It promises to wake, or to register anew, within alarm_seconds.  Not yet safe to sleep when this returns:
-- after its commit the worker must wait for the transactions that open_enqueues() shows,
-- for they may have looked before it was registered, then claim once more.
create or replace function arm_doorbell(worker_id integer, queues text[], alarm_seconds double precision)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  -- For this transaction alone: nobody needs the registration to survive a crash.
  perform set_config('synchronous_commit', 'off', true);
  insert into doorbell (worker_id, queues, alarm)
  values (arm_doorbell.worker_id, arm_doorbell.queues,
          statement_timestamp() + make_interval(secs => arm_doorbell.alarm_seconds))
  on conflict on constraint doorbell_pkey
  do update set queues = excluded.queues, alarm = excluded.alarm;
end;
$$;
comment on function arm_doorbell(integer, text[], double precision) is
  'Register a worker as asleep: it wants to be notified of new jobs.';
