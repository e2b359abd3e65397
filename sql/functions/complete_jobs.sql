-- complete_jobs: running -> completed, for the jobs that this worker still holds.
--
-- ids and attempts are parallel.  Returns the ids it could not complete because
-- the worker lost them (rescued, cancelled, settled otherwise); those are unchanged.
-- Settling the same start twice is no loss: a caller that got no answer may ask again.
-- claim_ids: batches of which this settles the last job; they are forgotten.
-- keep false: the jobs are deleted.  Then one that is not there any more is not reported as
-- lost: an earlier call may have deleted it.
create or replace function complete_jobs(worker_id integer, ids text[], attempts integer[],
                                         claim_ids bigint[] default '{}', keep boolean default true)
  returns setof text
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
declare
  v_attempt   integer;
  v_rows      integer;
  v_completed integer := 0;
begin
  -- One statement per number of attempts, nearly always one in all: a condition on a
  -- single column, where a join could be planned from the wrong end.
  for v_attempt in select distinct unnest(complete_jobs.attempts) loop
    if complete_jobs.keep then
      update jobs
         set status      = 'completed',
             error       = null,
             finished_at = statement_timestamp(),
             updated_at  = statement_timestamp()
       where jobs.id = any (array(
               select start.id
                 from unnest(complete_jobs.ids, complete_jobs.attempts) as start (id, attempts)
                where start.attempts = v_attempt))
         and jobs.status = 'running'
         and jobs.attempts = v_attempt
         and jobs.worker_id = complete_jobs.worker_id;
    else
      delete from jobs
       where jobs.id = any (array(
               select start.id
                 from unnest(complete_jobs.ids, complete_jobs.attempts) as start (id, attempts)
                where start.attempts = v_attempt))
         and jobs.status = 'running'
         and jobs.attempts = v_attempt
         and jobs.worker_id = complete_jobs.worker_id;
    end if;
    get diagnostics v_rows = row_count;
    v_completed := v_completed + v_rows;
  end loop;

  if cardinality(complete_jobs.claim_ids) > 0 then
    delete from claims
     where claims.worker_id = complete_jobs.worker_id
       and claims.id = any (complete_jobs.claim_ids);
  end if;

  if v_completed < cardinality(complete_jobs.ids) then
    return query
    select start.id
      from unnest(complete_jobs.ids, complete_jobs.attempts) as start (id, attempts)
     where not was_settled(complete_jobs.worker_id, start.id, start.attempts, 'completed')
       and (complete_jobs.keep or exists (select from jobs where jobs.id = start.id));
  end if;
end;
$$;
comment on function complete_jobs(integer, text[], integer[], bigint[], boolean) is
  'running -> completed, for jobs that this worker still holds; returns the ids it has lost.';
