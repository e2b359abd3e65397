-- is_polled: whether another worker polls for queues that this one wants.
--
-- Enqueues may count on that one.  A worker that falls asleep beside it looks after it: when it is
-- gone without having called anybody, the sleeper falls asleep anew, by all the steps.
create or replace function is_polled(worker_id integer)
  returns boolean
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select exists (
    select from doorbell
      left join doorbell as own on own.worker_id = is_polled.worker_id
     where doorbell.worker_id is distinct from is_polled.worker_id
       and (doorbell.queues is null or own.queues is null or doorbell.queues && own.queues)
       and is_held('ready', doorbell.worker_id));
$$;
comment on function is_polled(integer) is 'Whether another worker polls for queues that this one wants.';
