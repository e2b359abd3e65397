-- complete_jobs: mark running jobs as completed, if their starts still belong to these claims.
--
-- Returns the ids whose start is over, because the job was rescued, cancelled or settled in another way; those jobs are
-- not changed. It is safe to repeat a call whose answer was lost. If another transaction holds one of the rows for half
-- a second, it raises 55P03 (lock_not_available) and changes nothing; settle the jobs one by one then.
--
--   claim_ids        parallel to ids
--   finished_claims  claims of this worker that have no running job left after this call; their rows are deleted. If it
--                    is null, the function finds these claims itself.
--   keep             If it is false, the jobs are deleted, with their results. An id that does not exist is then not
--                    returned, because an earlier call may have deleted the job.
--   results          parallel to ids: what the handlers returned, null for nothing. Raises JQ001, and changes nothing,
--                    if a result has more than pgjobq.max_result_bytes (1000000) as text.
create or replace function complete_jobs(worker_id integer, ids text[], claim_ids bigint[],
                                         finished_claims bigint[] default null, keep boolean default true,
                                         results jsonb[] default null)
  returns setof text
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_nestloop = off
  set enable_mergejoin = off
  set lock_timeout = '500ms'  -- one row that another transaction holds must not delay the others
as $$
#variable_conflict use_column
declare
  v_now  constant timestamptz := clock_timestamp();
  v_rows integer;
begin
  -- The rows are found by their ids through the primary key, and joined to the starts by a hash.
  if complete_jobs.keep and complete_jobs.results is not null then
    v_rows := complete_with_results(complete_jobs.ids, complete_jobs.claim_ids, complete_jobs.results);
  elsif complete_jobs.keep then
    update jobs
       set status      = 'completed',
           error       = null,
           crashes     = 0,
           finished_at = v_now,
           updated_at  = v_now
      from unnest(complete_jobs.ids collate "C", complete_jobs.claim_ids) as start (id, claim_id)
     where jobs.id = any (complete_jobs.ids collate "C")
       and jobs.id = start.id
       and jobs.claim_id = start.claim_id
       and jobs.status = 'running';
    get diagnostics v_rows = row_count;
  else
    delete from jobs
     using unnest(complete_jobs.ids collate "C", complete_jobs.claim_ids) as start (id, claim_id)
     where jobs.id = any (complete_jobs.ids collate "C")
       and jobs.id = start.id
       and jobs.claim_id = start.claim_id
       and jobs.status = 'running';
    get diagnostics v_rows = row_count;
  end if;
  if is_waited() then
    perform notify_waiters(complete_jobs.ids);
  end if;
  if complete_jobs.finished_claims is null then
    perform forget_claims(complete_jobs.worker_id, complete_jobs.claim_ids);
  elsif cardinality(complete_jobs.finished_claims) > 0 then
    delete from claims
     where claims.worker_id = complete_jobs.worker_id
       and claims.id = any (complete_jobs.finished_claims);
  end if;

  if v_rows < cardinality(complete_jobs.ids) then
    return query
    select start.id
      from unnest(complete_jobs.ids collate "C", complete_jobs.claim_ids) as start (id, claim_id)
     where not was_settled(start.id, start.claim_id, 'completed')
       and (complete_jobs.keep or exists (select from jobs where jobs.id = start.id));
  end if;
end;
$$;
comment on function complete_jobs(integer, text[], bigint[], bigint[], boolean, jsonb[]) is
  'Mark running jobs as completed, if their starts still belong to these claims; returns the ids whose start is over.';
