-- retry_job: give a job another try after a delay in seconds.
--
-- By its worker, with the claim_id of its start: running -> pending, only while that start
-- goes on.  By an operator, without one: failed, cancelled or pending -> pending; this
-- grants one try even when all are used up, and lifts expires_at.  Keeps the last error unless a new one is
-- given.  Starts that ended with a crash are taken out of attempts, because they used up no
-- try, and crashes begins at 0 again.  False: the job is in no such state, nothing changed.
create or replace function retry_job(id text, delay_seconds double precision default 0, error text default null,
                                     claim_id bigint default null)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
  set lock_timeout = '500ms'
as $$
begin
  if retry_job.delay_seconds is null or not retry_job.delay_seconds between 0 and 3.2e9 then
    raise exception using errcode = 'JQ001',
      message = format('delay_seconds: %s is not a delay', coalesce(retry_job.delay_seconds::text, 'null')),
      hint    = 'Give the seconds to wait, from 0 to 3.2e9 (a hundred years).';
  end if;
  update jobs
     set status      = 'pending',
         error       = coalesce(retry_job.error, jobs.error),
         attempts    = greatest(jobs.attempts - jobs.crashes, 0),
         crashes     = 0,
         execute_at  = clock_timestamp() + make_interval(secs => retry_job.delay_seconds),
         expires_at  = case when retry_job.claim_id is not null then jobs.expires_at end,
         failed_at   = null,
         finished_at = null,
         updated_at  = clock_timestamp()
   where jobs.id = retry_job.id collate "C"
     and case when retry_job.claim_id is null
              then jobs.status in ('pending', 'failed', 'cancelled')
              else jobs.status = 'running' and jobs.claim_id = retry_job.claim_id
         end;
  return found or was_settled(retry_job.id collate "C", retry_job.claim_id, 'pending');
end;
$$;
comment on function retry_job(text, double precision, text, bigint) is
  'Give a job another try after a delay in seconds; false when it is in no state for that.';
