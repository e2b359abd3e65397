-- export_jobs: return one page of all jobs, oldest first, for copying a queue elsewhere.
--
-- Pass created_at and id of the last job of the previous page, or nothing for the first page. An empty page is the end.
-- A job whose transaction commits meanwhile may be missed, because it may belong to a page that was already read.
create or replace function export_jobs(max_jobs integer default 1000, after_created_at timestamptz default null,
                                       after_id text default null)
  returns setof jobs
  language plpgsql
  stable
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set enable_sort = off
as $$
begin
  if coalesce(export_jobs.max_jobs, 0) < 1 then
    raise exception using errcode = 'JQ001',
      message = format('max_jobs: %s is not a positive number', coalesce(export_jobs.max_jobs::text, 'null')),
      hint    = 'Use 1 or more.';
  end if;
  return query
  select jobs.*
    from jobs
   where (jobs.created_at, jobs.id)
       > (coalesce(export_jobs.after_created_at, '-infinity'), coalesce(export_jobs.after_id collate "C", ''))
   order by jobs.created_at, jobs.id
   limit export_jobs.max_jobs;
end;
$$;
comment on function export_jobs(integer, timestamptz, text) is
  'Return one page of all jobs, oldest first, beginning after the given job.';
