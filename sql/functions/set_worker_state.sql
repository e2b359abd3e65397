-- set_worker_state: a worker tells enqueues and other workers what it does.
--
--   state    keys                        an enqueue
--   awake    alive                       does not count on it: it has no room, or leaves
--   asleep   alive, anyone, asleep       notifies it
--   polling  alive, anyone, polling      notifies no worker: this one looks by itself
--   busy adds the key busy: others are notified first.  One that polls, serves every queue
--   and is not busy also holds the key everything, if no other does.
--
-- Call it on the session that registered the worker and that listens: the keys fall with
-- it.  queues: what it wants, null: all.  alarm_seconds: how often it looks at what is
-- scheduled by itself.  channel: where it listens, null for the one that bears the
-- schema's name.  One that stops to poll has all that sleep and want its queues fall
-- asleep again, because enqueues that are still open may have counted on it.
--
-- open: transactions that may have enqueued without seeing the new state.  One that falls
-- asleep claims again when they have ended (open_transactions), and may sleep only then.
-- null: not looked for, because the registration was new, and it must call again, or only
-- busy has changed.  pollers: the others that poll for queues it wants.  on_watch: no other that is not busy polls for the same queues.  An error,
-- JQ007, when another session holds its keys; then the state is as it was.
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
    raise exception using errcode = 'JQ001', hint = 'Give awake, asleep or polling.',
      message = format('state: %L is not a state of a worker', set_worker_state.state);
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
      hint    = 'See in pg_locks which one it is: only the session that registered the worker may.';
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
  -- After the keys were taken: one that polls from now on finds this one asleep, and has itself watched.
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
  'A worker tells enqueues and other workers what it does: awake, asleep or polling.';
