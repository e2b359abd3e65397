-- fail_job: running -> failed for good, for the start that belongs to this claim.
--
-- Keeps the error.  Starts that ended with a crash are taken out of attempts, as by
-- retry_job.  False: that start is over, because the job was rescued, cancelled or
-- settled otherwise, and nothing changed.
create or replace function fail_job(id text, claim_id bigint, error text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
  set lock_timeout = '500ms'
as $$
begin
  update jobs
     set status      = 'failed',
         error       = fail_job.error,
         attempts    = greatest(jobs.attempts - jobs.crashes, 0),
         crashes     = 0,
         failed_at   = clock_timestamp(),
         finished_at = clock_timestamp(),
         updated_at  = clock_timestamp()
   where jobs.id = fail_job.id collate "C"
     and jobs.status = 'running'
     and jobs.claim_id = fail_job.claim_id;
  return found or was_settled(fail_job.id collate "C", fail_job.claim_id, 'failed');
end;
$$;
comment on function fail_job(text, bigint, text) is
  'running -> failed for good, for the start that belongs to this claim; false when that is over.';
