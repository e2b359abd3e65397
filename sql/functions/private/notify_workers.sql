-- notify_workers: notify a worker that sleeps and wants a job of these queues that is due at execute_at (null: at once).
--
-- A NOTIFY serialises all commits of the cluster that carry one, so it is sent only when it can wake a worker, and to one:
-- the payload is the queue's name.  A second one is told to watch it, in case it does not answer: its channel with ? behind
-- it, and the id of the first.  They take turns, those that are busy after the others, and last those that did not answer.
--
-- caller: a worker that asks; then those that poll do not count.  call: 'help', there is more than it can take: one hears
-- an empty payload on its channel with ! behind it, and falls asleep again by all the steps; 'watch', two are told to watch
-- the caller.  types: the jobs are of these; workers that leave all of them to others do not count.
--
-- A transaction in repeatable read or serializable cannot see which worker has just registered, so unless one polls for
-- every queue it notifies on the channel that all listen on.
create or replace function notify_workers(queues text[], execute_at timestamptz default null, caller integer default null,
                                          call text default null, types text[] default null)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan  -- or each call would plan for the arguments that are null
as $$
declare
  v_sleeper record;
  v_first   integer := case when notify_workers.call = 'watch' then notify_workers.caller end;
begin
  if notify_workers.caller is null and current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    if not is_held('polling', 0) then
      perform pg_notify(current_schema(), notify_workers.queues[1]);
    end if;
    return;
  end if;
  for v_sleeper in
    with wanted as materialized (
      select doorbell.worker_id, doorbell.channel, doorbell.passed_over, is_held('polling', doorbell.worker_id) as polls,
             is_held('busy', doorbell.worker_id) as busy
        from doorbell
       where (doorbell.queues is null or notify_workers.queues is null or doorbell.queues && notify_workers.queues)
         and (notify_workers.execute_at is null
              or notify_workers.execute_at < clock_timestamp() + make_interval(secs => doorbell.alarm_seconds))
         and doorbell.worker_id is distinct from notify_workers.caller
         and (notify_workers.types is null
              or not exists (select from workers
                              where workers.id = doorbell.worker_id and notify_workers.types <@ workers.left_types))
    )
    select wanted.worker_id, wanted.channel
      from wanted, doorbell_turn
     where not wanted.polls and is_held('asleep', wanted.worker_id)
       and (notify_workers.caller is not null
            or not exists (select from wanted as poller where poller.polls and (not poller.busy or wanted.busy)))
     order by wanted.passed_over, wanted.busy, wanted.worker_id <= doorbell_turn.last_value, wanted.worker_id
     limit 2
  loop
    if v_first is not null then
      perform pg_notify(v_sleeper.channel || '?', v_first::text);
    else
      v_first := v_sleeper.worker_id;
      perform setval('doorbell_turn', v_first),
              case when notify_workers.call = 'help' then pg_notify(v_sleeper.channel || '!', '')
                   else pg_notify(v_sleeper.channel, notify_workers.queues[1]) end;
    end if;
  end loop;
end;
$$;
comment on function notify_workers(text[], timestamptz, integer, text, text[]) is
  'Private: notify a worker that sleeps and wants a job of these queues, and tell a second one to watch it.';
