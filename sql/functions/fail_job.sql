-- fail_job: mark a running job as failed for good, if its start still belongs to this claim.
--
-- Stores the error, records the try in attempts, and subtracts crashes from the job's attempts, as retry_job does.
-- Returns false, and changes nothing, if the start is over because the job was rescued, cancelled or settled in another
-- way. It is safe to repeat a call. Raises 55P03 (lock_not_available) if another transaction holds the row for half a
-- second.
--
--   outcome  how the try ended: 'raised', 'timed out' or 'worker died'
create or replace function fail_job(id text, claim_id bigint, error text, outcome text default 'raised')
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
  set lock_timeout = '500ms'
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_job jobs;
begin
  select *
    from jobs
   where jobs.id = fail_job.id collate "C"
     and jobs.status = 'running'
     and jobs.claim_id = fail_job.claim_id
     for no key update
    into v_job;
  if not found then
    return was_settled(fail_job.id collate "C", fail_job.claim_id, 'failed');
  end if;
  update jobs
     set status      = 'failed',
         error       = fail_job.error,
         fingerprint = fingerprint(v_job.type, fail_job.error),
         attempts    = greatest(v_job.attempts - v_job.crashes, 0),
         crashes     = 0,
         failed_at   = v_now,
         finished_at = v_now,
         updated_at  = v_now
   where jobs.id = v_job.id;
  perform note_attempt(v_job, fail_job.outcome, fail_job.error);
  perform notify_waiters(array[v_job.id]);
  return true;
end;
$$;
comment on function fail_job(text, bigint, text, text) is
  'Mark a running job as failed for good, if its start still belongs to this claim; returns false if that is over.';
