-- notify_workers: notify one sleeping worker of a job in one of these queues that is due at execute_at (null: now).
--
-- A NOTIFY serializes all commits of the cluster that carry one. So it is sent only if it can wake a worker, and not if
-- a worker that polls will find the job. The payload is the queue's name. A second worker is told to watch the first,
-- in case the first does not answer: it gets the id of the first on its channel with ? appended. The workers take
-- turns. Busy workers come after others, and workers that did not answer come last.
--
--   caller  the worker that asks; other workers are then notified even if one polls
--   call    'help': the caller has more jobs than it can run. One worker gets an empty payload on its channel with !
--           appended, and falls asleep again by all the steps. 'watch': two workers are told to watch the caller.
--   types   the types of the jobs; workers that leave all of these to others are not notified
--
-- A transaction in repeatable read or serializable may not see a worker that has just registered. It therefore notifies
-- the channel on which all workers listen, unless a worker polls for every queue.
create or replace function notify_workers(queues text[], execute_at timestamptz default null, caller integer default null,
                                          call text default null, types text[] default null)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan  -- otherwise each call is planned again, because of null arguments
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
  'Private: notify one sleeping worker of a job in one of these queues, and tell a second one to watch it.';
