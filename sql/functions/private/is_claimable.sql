-- is_claimable: whether a place in ready still stands for a job that may be claimed.
--
-- False: the job is gone, not pending, not due, or was moved to another queue or
-- priority.  Its place is then an orphan.
create or replace function is_claimable(job_id text, queue text, priority integer)
  returns boolean
  language plpgsql  -- keeps its plan: called for each place whose job was not free
  stable
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
begin
  return exists (
    select from jobs
     where jobs.id = is_claimable.job_id
       and jobs.status = 'pending'
       and jobs.queue = is_claimable.queue
       and jobs.priority = is_claimable.priority
       and (jobs.execute_at is null or jobs.execute_at <= statement_timestamp()));
end;
$$;
comment on function is_claimable(text, text, integer) is
  'Private: whether a place in ready still stands for a job that may be claimed.';
