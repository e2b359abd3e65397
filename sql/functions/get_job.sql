-- get_job: return the job with this id, or no row if there is none.
create or replace function get_job(id text)
  returns setof jobs
  language sql
  stable
  security definer
  set search_path from current
as $$
  select jobs.* from jobs where jobs.id = get_job.id collate "C";
$$;
comment on function get_job(text) is 'Return the job with this id, or no row if there is none.';
