-- why_job: say in one sentence why a job is not running, or what became of it.
--
-- It names one reason: the first of those in why_pending that holds, for a pending job. It reads at most 10,000 places
-- of the job's queue, waits for nothing and changes nothing. Only if a transaction has locked or changed the job's row
-- does it try to lock that row, to find out whether the lock is still held; it releases the row at once. The times are
-- in the session's time zone. The wording may change in any version.
create or replace function why_job(id text)
  returns text
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
as $$
declare
  v_job jobs;
begin
  select jobs.* from jobs where jobs.id = why_job.id collate "C" into v_job;
  return case when not found               then why_unknown(why_job.id)
              when v_job.status = 'pending' then why_pending(v_job)
              when v_job.status = 'running' then why_running(v_job)
              else why_ended(v_job) end;
end;
$$;
comment on function why_job(text) is 'Say in one sentence why a job is not running, or what became of it.';
