-- lost_jobs: which of these starts the worker does not hold any more.
--
-- ids and attempts are parallel.  A worker asks now and then while jobs run long, to
-- stop the handlers of those that were rescued or cancelled.
create or replace function lost_jobs(worker_id integer, ids text[], attempts integer[])
  returns setof text
  language sql
  stable
  security definer
  set search_path from current
as $$
  select start.id
    from unnest(lost_jobs.ids, lost_jobs.attempts) as start (id, attempts)
   where not was_settled(lost_jobs.worker_id, start.id, start.attempts, 'running');
$$;
comment on function lost_jobs(integer, text[], integer[]) is
  'Which of these starts the worker does not hold any more.';
