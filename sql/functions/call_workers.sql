-- call_workers: ask workers that sleep to do something for this one.
--
-- call: 'help', there is more than it can take: one that wants its queues falls asleep
-- again, and so looks for jobs; 'watch': two look soon whether this one still works.
create or replace function call_workers(worker_id integer, call text)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  perform notify_workers(case when call_workers.call = 'help'
                              then (select doorbell.queues from doorbell where doorbell.worker_id = call_workers.worker_id) end,
                         null, call_workers.worker_id, call_workers.call);
end;
$$;
comment on function call_workers(integer, text) is 'Ask workers that sleep for help, or to watch this one.';
