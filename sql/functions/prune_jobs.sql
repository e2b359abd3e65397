-- prune_jobs: delete jobs that finished longer ago than older_than, oldest first.
--
-- One batch of at most max_jobs; returns how many were deleted: call again, in a
-- transaction of its own, until it is less than max_jobs.  Jobs that another transaction
-- holds are skipped.  Walks the jobs in the order of created_at, for a job finishes
-- after it was created.
create or replace function prune_jobs(older_than interval default '7 days',
                                      statuses text[] default '{completed,cancelled}',
                                      max_jobs integer default 1000)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set enable_sort = off
as $$
declare
  v_pruned integer;
begin
  if not coalesce(prune_jobs.statuses <@ '{completed,failed,cancelled}', false) then
    raise exception using errcode = 'JQ001',
      message = format('statuses: %s holds a status that is not a final one', prune_jobs.statuses),
      hint    = 'Give some of completed, failed, cancelled.';
  elsif coalesce(prune_jobs.max_jobs, 0) < 1 then
    raise exception using errcode = 'JQ001',
      message = format('max_jobs: %s is not a number of jobs', coalesce(prune_jobs.max_jobs::text, 'null')),
      hint    = 'Give 1 or more.';
  elsif coalesce(prune_jobs.older_than < interval '0', true) then
    raise exception using errcode = 'JQ001',
      message = format('older_than: %s is not an age', coalesce(prune_jobs.older_than::text, 'null')),
      hint    = 'Give an interval of 0 or more.';
  end if;
  with old as materialized (
    select jobs.id
      from jobs
     where jobs.created_at <= statement_timestamp() - prune_jobs.older_than
       and jobs.finished_at <= statement_timestamp() - prune_jobs.older_than
       and jobs.status = any (prune_jobs.statuses)
     order by jobs.created_at, jobs.id
     limit prune_jobs.max_jobs
       for update skip locked
  )
  delete from jobs
   where jobs.id = any (array(select old.id from old));
  get diagnostics v_pruned = row_count;
  return v_pruned;
end;
$$;
comment on function prune_jobs(interval, text[], integer) is
  'Delete one batch of jobs that finished longer ago than older_than; returns how many.';
