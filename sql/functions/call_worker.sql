-- call_worker: ask one sleeping worker to look for jobs of the caller's queues, carefully.
--
-- A worker calls it when there is more than it can take.  The one called hears an empty
-- payload on its channel with ! behind it, and falls asleep anew, by all the steps: there may
-- be enqueues that counted on the caller and are not committed yet.  A second is told to
-- look after it.
create or replace function call_worker(worker_id integer)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_channels text[];
begin
  v_channels := sleepers((select doorbell.queues from doorbell where doorbell.worker_id = call_worker.worker_id),
                         null, call_worker.worker_id);
  if v_channels <> '{}' then
    perform pg_notify(v_channels[1] || '!', '');
    if v_channels[2] <> v_channels[1] then
      perform pg_notify(v_channels[2], '');
    end if;
  end if;
end;
$$;
comment on function call_worker(integer) is
  'Ask one sleeping worker to look for jobs of the caller''s queues: there is more than it can take.';
