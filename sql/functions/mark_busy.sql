-- mark_busy: a worker has been running jobs for some milliseconds (true), or has none left.
--
-- A busy worker is notified only when no other sleeps, and one that polls while busy keeps
-- nobody else from being notified: slow jobs spread over the workers.
create or replace function mark_busy(worker_id integer, busy boolean)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  perform hold_key('claims', mark_busy.worker_id, mark_busy.busy);
  perform hold_key('ready', watch_key(doorbell.queues), false)
     from doorbell
    where doorbell.worker_id = mark_busy.worker_id and mark_busy.busy;
end;
$$;
comment on function mark_busy(integer, boolean) is
  'A worker has been running jobs for some milliseconds, or has none left: notify others first.';
