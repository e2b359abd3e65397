-- set_progress: report how far a running job is, if its start still belongs to this claim.
--
-- Replaces what was reported before; message and meta, too, if they are null. fraction is from 0 to 1. Returns false, and
-- changes nothing, if the start is over, or if another transaction is writing the progress of the job. What is reported
-- is lost if the server crashes. Call it in a short transaction of its own, because readers see nothing before it
-- commits, and at most once a second for each job. It raises 55P03 if another transaction holds the first report.
create or replace function set_progress(job_id text, claim_id bigint, fraction float8, message text default null,
                                        meta jsonb default null)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set lock_timeout = '100ms'  -- the worker's settles must not wait for it
as $$
#variable_conflict use_column
begin
  if set_progress.fraction between 0 and 1 is not true then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('fraction: %s is not from 0 to 1', coalesce(set_progress.fraction::text, 'null')),
      hint    = 'Use the share that is done, such as 0.4.';
  end if;
  -- Lock the row first. The next statement then sees a start that has reported in the meantime, and leaves its row.
  perform from progress where progress.job_id = set_progress.job_id collate "C" for update skip locked;
  if found then
    update progress
       set claim_id   = set_progress.claim_id,
           fraction   = set_progress.fraction,
           message    = set_progress.message,
           meta       = set_progress.meta,
           updated_at = clock_timestamp()
      from jobs
     where progress.job_id = set_progress.job_id collate "C"
       and jobs.id = progress.job_id
       and jobs.claim_id = set_progress.claim_id
       and jobs.status = 'running';
  elsif not exists (select from progress where progress.job_id = set_progress.job_id collate "C") then
    insert into progress (job_id, claim_id, fraction, message, meta)
    select jobs.id, jobs.claim_id, set_progress.fraction, set_progress.message, set_progress.meta
      from jobs
     where jobs.id = set_progress.job_id collate "C"
       and jobs.claim_id = set_progress.claim_id
       and jobs.status = 'running'
    on conflict do nothing;
  end if;
  return found;
end;
$$;
comment on function set_progress(text, bigint, float8, text, jsonb) is
  'Report how far a running job is, if its start still belongs to this claim; returns false if the start is over.';
