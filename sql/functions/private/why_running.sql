-- why_running: say which worker holds a running job, and what keeps it from being settled; for why_job.
--
-- Whether a claim holds the job is read together with the job, because the job may have been settled meanwhile.
create or replace function why_running(job jobs)
  returns text
  language plpgsql
  volatile
  set search_path from current
as $$
#variable_conflict use_column
declare
  v_id     constant integer := why_running.job.worker_id;
  v_alive  constant integer[] := array(select live_workers());
  v_worker text;
  v_since  constant text := moment_in_words(why_running.job.started_at);
  v_holder text;
begin
  if exists (select from jobs
              where jobs.id = why_running.job.id and jobs.status = 'running'
                and jobs.claim_id is not distinct from why_running.job.claim_id
                and not exists (select from claims
                                 where claims.worker_id = jobs.worker_id and claims.id = jobs.claim_id
                                   and jobs.id = any (claims.job_ids))) then
    return 'The job is running, but no claim holds it, so no worker will settle it; repair_jobs (pgjobq repair) puts it back in line.';
  end if;
  v_worker := format('worker %s%s', v_id, (select format(' (%s)', workers.name) from workers where workers.id = v_id));
  if v_id <> all (v_alive) then
    return format('The job is held by %s, which claimed it at %s and is dead; %s.', v_worker, v_since,
                  case when v_alive = '{}' then 'no worker is alive to rescue the job'
                       else 'a live worker rescues the job in a few seconds' end);
  end if;
  v_holder := row_holder(why_running.job.id);
  return format('The job is running: %s claimed it at %s, for start %s%s.', v_worker, v_since, why_running.job.attempts,
                '; its row is locked by ' || v_holder || ', which may be its handler''s transaction');
end;
$$;
comment on function why_running(jobs) is 'Private: say which worker holds a running job.';
