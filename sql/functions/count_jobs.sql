-- count_jobs: count the jobs of each status.
--
-- The counts are exact, so this scans the whole table. The view job_stats is cheap, and marks the rows that it
-- estimates.
create or replace function count_jobs(out status text, out jobs bigint)
  returns setof record
  language sql
  stable
  security definer
  set search_path from current
as $$
  select jobs.status, count(*) from jobs group by jobs.status;
$$;
comment on function count_jobs() is 'Count the jobs of each status exactly; this scans the whole table.';
