-- call_workers: ask sleeping workers to help a worker, or to watch it.
--
-- call is 'help' or 'watch':
--
--   help   The worker has more jobs than it can run. One sleeping worker that serves any of its queues falls asleep
--          again by all the steps, and claims jobs as it does so.
--   watch  Two sleeping workers check soon whether the worker still takes jobs.
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
comment on function call_workers(integer, text) is 'Ask sleeping workers to help a worker, or to watch it.';
