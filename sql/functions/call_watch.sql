-- call_watch: ask two sleeping workers to look after this one more often.
--
-- A worker calls it when a job of its runs long, or it starts to poll.  The empty payload
-- names no queue: a worker that hears it goes to rescue_jobs, not to claim_jobs.
create or replace function call_watch(worker_id integer default 0)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  perform pg_notify(watcher.channel, '')
     from unnest(sleepers(null, null, call_watch.worker_id)) as watcher (channel);
end;
$$;
comment on function call_watch(integer) is 'Ask two sleeping workers to look after this one more often.';
