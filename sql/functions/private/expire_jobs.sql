-- expire_jobs: cancel the jobs of these places of ready that should have been started by now.
--
-- A job that another transaction holds is left to the next claim.
create or replace function expire_jobs(places tid[])
  returns void
  language sql
  volatile
  set search_path from current
as $$
  with expired as (
    update jobs
       set status      = 'cancelled',
           error       = 'expired',
           claim_id    = null,
           finished_at = clock_timestamp(),
           updated_at  = clock_timestamp()
     where jobs.id = any (array(
             select job.id
               from unnest(expire_jobs.places) as given (tid)
              cross join lateral (
                select ready.job_id from ready where ready.ctid = given.tid for update skip locked) as place
              cross join lateral (
                select jobs.id from jobs
                 where jobs.id = place.job_id and jobs.status = 'pending' and jobs.expires_at <= clock_timestamp()
                   for no key update skip locked) as job))
    returning jobs.id
  )
  select notify_waiters(array(select expired.id from expired));
$$;
comment on function expire_jobs(tid[]) is
  'Private: cancel the jobs of these places that should have been started by now.';
