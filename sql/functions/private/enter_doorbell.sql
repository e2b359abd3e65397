-- enter_doorbell: record where a worker listens and which queues it serves; return whether that changed anything.
--
-- If nothing has changed, it writes nothing. Raises JQ007 if another transaction holds the worker's row.
create or replace function enter_doorbell(worker_id integer, queues text[], alarm_seconds double precision, channel text)
  returns boolean
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  if exists (
    select from doorbell
     where doorbell.worker_id = enter_doorbell.worker_id
       and doorbell.queues is not distinct from enter_doorbell.queues
       and doorbell.alarm_seconds = enter_doorbell.alarm_seconds
       and doorbell.channel = enter_doorbell.channel
       and not doorbell.passed_over)
  then
    return false;
  end if;
  perform from doorbell where doorbell.worker_id = enter_doorbell.worker_id for no key update skip locked;
  if not found and exists (select from doorbell where doorbell.worker_id = enter_doorbell.worker_id) then
    raise exception using errcode = 'JQ007',
      message = format('worker_id: another transaction has locked the row of worker %s in doorbell', enter_doorbell.worker_id),
      hint    = 'Find the transaction that called watch_workers and was left open, and end it.';
  end if;
  -- This applies to this transaction only. The registration need not survive a crash of the server.
  perform set_config('synchronous_commit', 'off', true);
  insert into doorbell (worker_id, queues, alarm_seconds, channel)
  values (enter_doorbell.worker_id, enter_doorbell.queues, enter_doorbell.alarm_seconds, enter_doorbell.channel)
  on conflict on constraint doorbell_pkey
  do update set queues        = excluded.queues,
                alarm_seconds = excluded.alarm_seconds,
                channel       = excluded.channel,
                passed_over   = false;
  return true;
end;
$$;
comment on function enter_doorbell(integer, text[], double precision, text) is
  'Private: record where a worker listens and which queues it serves; returns whether that changed anything.';
