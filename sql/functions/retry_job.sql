-- retry_job: make a job pending again, due after a delay in seconds.
--
-- A worker passes the claim_id of its start: its running job becomes pending, if that start is not over, and the try is
-- recorded in attempts. An operator passes no claim_id: a failed, cancelled or pending job becomes pending, gets one try
-- even if all are used up, and does not expire. The last error is kept unless a new one is given. crashes is subtracted
-- from attempts, because crashes use up no try, and is set to 0. Returns false, and changes nothing, if the job is not
-- in such a state. It is safe to repeat a call.
-- Raises 55P03 (lock_not_available) if another transaction holds the row for half a second.
-- Raises JQ008 if an operator retries a failed or cancelled job whose unique key another unfinished job has.
--
--   outcome  how the try of a worker ended: 'raised', 'timed out' or 'worker died'
--   reason   why an operator retries the job, for the view actions
create or replace function retry_job(id text, delay_seconds double precision default 0, error text default null,
                                     claim_id bigint default null, outcome text default 'raised',
                                     reason text default null)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
  set lock_timeout = '500ms'
as $$
declare
  v_job    jobs;
  v_holder text;
begin
  if retry_job.delay_seconds is null or not retry_job.delay_seconds between 0 and 3.2e9 then
    raise exception using errcode = 'JQ001',
      message = format('delay_seconds: %s is not a delay', coalesce(retry_job.delay_seconds::text, 'null')),
      hint    = 'Use a number of seconds from 0 to 3.2e9 (a hundred years).';
  end if;
  if retry_job.claim_id is null then
    select take_unique_key(jobs.unique_key, jobs.id)
      from jobs
     where jobs.id = retry_job.id collate "C" and jobs.status in ('failed', 'cancelled') and jobs.unique_key is not null
      into v_holder;
    perform refuse_taken_key(v_holder, retry_job.id);
  end if;
  select *
    from jobs
   where jobs.id = retry_job.id collate "C"
     and case when retry_job.claim_id is null then jobs.status in ('pending', 'failed', 'cancelled')
              else jobs.status = 'running' and jobs.claim_id = retry_job.claim_id end
     for no key update
    into v_job;
  if not found then
    return was_settled(retry_job.id collate "C", retry_job.claim_id, 'pending');
  end if;
  update jobs
     set status      = 'pending',
         error       = coalesce(retry_job.error, v_job.error),
         fingerprint = null,
         attempts    = greatest(v_job.attempts - v_job.crashes, 0),
         crashes     = 0,
         execute_at  = clock_timestamp() + make_interval(secs => retry_job.delay_seconds),
         expires_at  = case when retry_job.claim_id is not null then v_job.expires_at end,
         failed_at   = null,
         finished_at = null,
         updated_at  = clock_timestamp()
   where jobs.id = v_job.id;
  if retry_job.claim_id is not null then
    perform note_attempt(v_job, retry_job.outcome, retry_job.error);
  else
    perform note_action(case when v_job.status = 'pending' and retry_job.delay_seconds = 0 then 'run now' else 'retry' end,
                        'job ' || v_job.id, retry_job.reason);
  end if;
  return true;
end;
$$;
comment on function retry_job(text, double precision, text, bigint, text, text) is
  'Make a job pending again, due after a delay in seconds; returns false if its state does not allow that.';
