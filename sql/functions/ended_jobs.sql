-- ended_jobs: return those of these jobs that are completed, failed or cancelled, and those that do not exist.
--
-- job is null for an id that does not exist. Jobs that have not ended are not returned.
create or replace function ended_jobs(ids text[])
  returns table (id text, job jobs)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  return query
  select given.id, found.job
    from unnest(ended_jobs.ids collate "C") as given (id)
    left join lateral (select jobs as job, jobs.status from jobs where jobs.id = given.id) as found on true
   where found.status is null
      or found.status in ('completed', 'failed', 'cancelled');
end;
$$;
comment on function ended_jobs(text[]) is
  'Return those of these jobs that are completed, failed or cancelled, and those that do not exist (with a null job).';
