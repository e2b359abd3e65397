-- cancel_job: cancel a pending or running job.
--
-- Cancelling does not stop the worker of a running job. The worker has lost the job: it finds out within about a
-- second, or when it settles, and can no longer change the job. What its handler has done stays done. Returns false if
-- the job had already finished, or is unknown.
create or replace function cancel_job(id text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  update jobs
     set status      = 'cancelled',
         claim_id    = null,
         finished_at = clock_timestamp(),
         updated_at  = clock_timestamp()
   where jobs.id = cancel_job.id collate "C"
     and jobs.status in ('pending', 'running');
  return found;
end;
$$;
comment on function cancel_job(text) is
  'Cancel a pending or running job; returns false if it had already finished, or is unknown.';
