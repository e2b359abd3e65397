-- sleepers: the channels of up to two workers to notify of a job of these queues that is due
-- at execute_at (null: at once): the one to ring, and one to look after it.
--
-- Empty when nobody need be: no worker that wants the job sleeps, or one looks for jobs by
-- itself.  Those who are busy come last.  caller: the worker that asks for help; then workers
-- that poll do not count.
create or replace function sleepers(queues text[], execute_at timestamptz, caller integer default null)
  returns text[]
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan  -- or each call would plan for the arguments that are null
as $$
declare
  v_bell   record;
  v_free   text[]  := '{}';
  v_busy   text[]  := '{}';
  v_polled boolean := false;
begin
  for v_bell in
    select doorbell.worker_id, doorbell.channel
      from doorbell
     where (doorbell.queues is null or sleepers.queues is null or doorbell.queues && sleepers.queues)
       and (sleepers.execute_at is null
            or sleepers.execute_at < statement_timestamp() + make_interval(secs => doorbell.alarm_seconds))
       and doorbell.worker_id is distinct from sleepers.caller
     order by doorbell.worker_id
  loop
    if is_held('ready', v_bell.worker_id) then
      if sleepers.caller is null and not is_held('claims', v_bell.worker_id) then
        return '{}';
      end if;
      v_polled := v_polled or sleepers.caller is null;
    elsif is_held('doorbell', v_bell.worker_id) then
      if is_held('claims', v_bell.worker_id) then
        v_busy := v_busy || v_bell.channel;
      else
        v_free := v_free || v_bell.channel;
      end if;
    end if;
  end loop;
  if v_polled and v_free = '{}' then
    return '{}';
  end if;
  return (v_free || v_busy)[1:2];
end;
$$;
comment on function sleepers(text[], timestamptz, integer) is
  'Private: the channels of the worker to notify of a job, and of one to look after it.';
