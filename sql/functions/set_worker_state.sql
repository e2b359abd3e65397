-- set_worker_state: show enqueues and other workers what a worker does.
--
--   state    keys                        an enqueue
--   awake    alive                       does not count on the worker, which has no room or is stopping
--   asleep   alive, anyone, asleep       notifies the worker
--   polling  alive, anyone, polling      notifies no worker, because this one finds the job by itself
--
-- A busy worker also holds the key busy, and enqueues notify others first. A worker that polls, serves every queue and
-- is not busy also holds everything, if no other does. Call this on the session that registered the worker and listens:
-- it holds the keys. A worker that stops polling makes all sleepers that share a queue with it fall asleep again,
-- because open enqueues may have counted on it. Raises JQ007, and changes nothing, if another session holds its keys.
--
--   queues         the queues that the worker serves; null: all queues
--   alarm_seconds  how often the worker checks scheduled by itself
--   channel        where the worker listens; null: the channel with the schema's name
--   open           transactions that may have enqueued without seeing the new state. The worker may sleep only when
--                  they have ended (open_transactions) and it has claimed once more. Null: the worker is not asleep,
--                  only busy changed, or the registration was new and the worker must call again.
--   pollers        the other workers that poll for its queues
--   on_watch       whether the worker polls, is not busy, and no other such worker polls for the same queues
create or replace function set_worker_state(worker_id integer, state text, busy boolean default false,
                                            queues text[] default null, alarm_seconds double precision default 30,
                                            channel text default null,
                                            out open xid8[], out pollers integer[], out on_watch boolean)
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
#variable_conflict use_column
declare
  v_keys   text[] collate "C" := '{alive}';
  v_held   constant text[]  := coalesce(string_to_array(current_setting('pgjobq.keys', true), ' '), '{}');
  v_own    constant text    := format(':%s:%s', set_worker_state.worker_id, lock_class('alive'));
  v_polled constant boolean := 'polling' || v_own = any (v_held);
  v_turns  constant boolean := 'asleep' || v_own = any (v_held) and ('busy' || v_own = any (v_held)) <> set_worker_state.busy;
  v_new    boolean := false;
begin
  if set_worker_state.state not in ('awake', 'asleep', 'polling') then
    raise exception using errcode = 'JQ001', hint = 'Use awake, asleep or polling.',
      message = format('state: %L is not a worker state', set_worker_state.state);
  elsif set_worker_state.state <> 'awake' then
    v_new := enter_doorbell(set_worker_state.worker_id, set_worker_state.queues, set_worker_state.alarm_seconds,
                            coalesce(set_worker_state.channel, current_schema()));
    v_keys := v_keys || array['anyone', set_worker_state.state] || case when set_worker_state.busy then '{busy}'::text[] end;
  end if;
  on_watch := set_worker_state.state = 'polling' and not set_worker_state.busy and not exists (
    select from doorbell
     where doorbell.worker_id <> set_worker_state.worker_id
       and doorbell.queues is not distinct from set_worker_state.queues collate "C"
       and is_held('polling', doorbell.worker_id) and not is_held('busy', doorbell.worker_id));
  if not hold_keys(set_worker_state.worker_id, v_keys) then
    raise exception using errcode = 'JQ007',
      message = format('worker_id: another session holds a key of worker %s', set_worker_state.worker_id),
      hint    = 'Find that session in pg_locks. Only the session that registered the worker may hold its keys.';
  elsif on_watch and set_worker_state.queues is null then
    on_watch := hold_keys(set_worker_state.worker_id, v_keys || 'everything'::text);
  end if;
  if v_polled and set_worker_state.state = 'awake' then
    perform pg_notify(sleeper.channel || '!', '')
       from doorbell as sleeper
       join doorbell as own on own.worker_id = set_worker_state.worker_id
      where sleeper.worker_id <> set_worker_state.worker_id
        and (sleeper.queues is null or own.queues is null or sleeper.queues && own.queues)
        and is_held('asleep', sleeper.worker_id);
  end if;
  -- Read after the keys were taken: a worker that polls later sees this one asleep, and asks it to watch.
  pollers := array(
    select doorbell.worker_id
      from doorbell
     where doorbell.worker_id <> set_worker_state.worker_id
       and (doorbell.queues is null or set_worker_state.queues is null or doorbell.queues && set_worker_state.queues)
       and is_held('polling', doorbell.worker_id));
  if set_worker_state.state = 'asleep' and not v_new and not v_turns then
    open := open_transactions('jobs');
  end if;
end;
$$;
comment on function set_worker_state(integer, text, boolean, text[], double precision, text) is
  'Show enqueues and other workers what a worker does: awake, asleep or polling.';
