-- export_jobs: one page of all jobs, oldest first: those after the job given.
--
-- For copying a queue elsewhere: give created_at and id of the last job of the page
-- before, and nothing for the first.  An empty page is the end.  Jobs of transactions
-- that commit meanwhile may be missing: they may lie before a page that was read.
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
      message = format('max_jobs: %s is not a number of jobs', coalesce(export_jobs.max_jobs::text, 'null')),
      hint    = 'Give 1 or more.';
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
  'One page of all jobs, oldest first: those after the job given.';
