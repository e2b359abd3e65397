-- cancel_job: pending or running -> cancelled.
--
-- A running job's worker is not stopped here: it has lost the job, finds that out
-- within about a second or when it settles, and can change it no more; what its
-- handler did so far stays done.  False: the job was finished already, or is unknown.
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
  'pending or running -> cancelled; false when the job was finished already or is unknown.';
