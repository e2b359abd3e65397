-- fail_job: running -> failed for good, for a job that this worker still holds.
--
-- Keeps the error.  False: the worker has lost the job (rescued, cancelled, settled
-- otherwise), and nothing changed.
create or replace function fail_job(worker_id integer, id text, attempts integer, error text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  update jobs
     set status      = 'failed',
         error       = fail_job.error,
         failed_at   = statement_timestamp(),
         finished_at = statement_timestamp(),
         updated_at  = statement_timestamp()
   where jobs.id = fail_job.id
     and jobs.status = 'running'
     and jobs.attempts = fail_job.attempts
     and jobs.worker_id = fail_job.worker_id;
  return found or was_settled(fail_job.worker_id, fail_job.id, fail_job.attempts, 'failed');
end;
$$;
comment on function fail_job(integer, text, integer, text) is
  'running -> failed for good, for a job that this worker still holds; false when it has lost the job.';
