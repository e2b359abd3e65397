-- count_jobs: how many jobs there are of each status; exact, and so a scan of jobs.
--
-- The view job_stats is cheap, and says where it estimates.
create or replace function count_jobs(out status text, out jobs bigint)
  returns setof record
  language sql
  stable
  security definer
  set search_path from current
as $$
  select jobs.status, count(*) from jobs group by jobs.status;
$$;
comment on function count_jobs() is 'How many jobs there are of each status; exact, and so a scan of jobs.';
