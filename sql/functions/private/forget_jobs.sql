-- forget_jobs: delete what belongs to jobs that were deleted. A table that keeps rows for jobs has a statement here.
create or replace function forget_jobs(ids text[])
  returns void
  language plpgsql
  volatile
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
begin
  delete from attempts where attempts.job_id = any (forget_jobs.ids collate "C");
  delete from results where results.job_id = any (forget_jobs.ids collate "C");
  delete from progress where progress.job_id = any (forget_jobs.ids collate "C");
  delete from log_lines where log_lines.job_id = any (forget_jobs.ids collate "C");
end;
$$;
comment on function forget_jobs(text[]) is 'Private: delete what belongs to jobs that were deleted.';
