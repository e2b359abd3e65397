-- cancel_job: cancel a pending or running job.
--
-- The worker of a running job has lost the job: it can no longer change it. When the caller's transaction commits, the
-- worker is notified on its cancel_channel, and stops the handler if it can. What the handler has done stays done. A worker
-- that cannot be notified finds out within about a second, or when it settles.
--
--   reason  why, kept in the job's error; null: the error stays as it is
--
-- Records the action, and in attempts the try of a running job.
--
-- Waits for a transaction that has locked the job's row. Returns false if the job had already finished, or is unknown.
create or replace function cancel_job(id text, reason text default null)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_job jobs;
begin
  select *
    from jobs
   where jobs.id = cancel_job.id collate "C"
     and jobs.status in ('pending', 'running')
     for no key update
    into v_job;
  if not found then
    return false;
  end if;
  update jobs
     set status      = 'cancelled',
         error       = coalesce(cancel_job.reason, jobs.error),
         claim_id    = null,
         finished_at = clock_timestamp(),
         updated_at  = clock_timestamp()
   where jobs.id = cancel_job.id collate "C";
  if v_job.status = 'running' then
    perform note_attempt(v_job, 'cancelled', cancel_job.reason);
    if v_job.worker_id is not null then
      perform pg_notify(cancel_channel(v_job.worker_id), '');
    end if;
  end if;
  perform note_action('cancel', 'job ' || v_job.id, cancel_job.reason);
  perform notify_waiters(array[cancel_job.id]);
  return true;
end;
$$;
comment on function cancel_job(text, text) is
  'Cancel a pending or running job; returns false if it had already finished, or is unknown.';
