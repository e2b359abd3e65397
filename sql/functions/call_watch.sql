-- call_watch: ask the sleeping workers to look after this one more often.
--
-- A worker calls it when a job of its runs long.  The empty payload names no queue: a
-- worker that hears it goes to rescue_jobs, not to claim_jobs.
create or replace function call_watch()
  returns void
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select pg_notify(current_schema(), '') where exists (select from doorbell);
$$;
comment on function call_watch() is 'Ask the sleeping workers to look after this one more often.';
