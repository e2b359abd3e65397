-- complete_jobs: running -> completed, for the starts that belong to these claims.
--
-- ids and claim_ids are parallel.  Returns the ids whose start is over, because the job
-- was rescued, cancelled or settled otherwise; those are unchanged.  To settle the same
-- start twice does no harm: a caller that got no answer asks again.  An error, and no
-- change, after half a second behind a row that another transaction holds: settle one by
-- one then.
--
-- finished_claims: claims of which this settles the last job, and which are forgotten;
-- null: the function finds out itself.  keep false: the jobs are deleted; then one that
-- is not there is not reported, because an earlier call may have deleted it.
create or replace function complete_jobs(worker_id integer, ids text[], claim_ids bigint[],
                                         finished_claims bigint[] default null, keep boolean default true)
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
  set lock_timeout = '500ms'  -- a row that another transaction holds must not hold up the settling of the others
as $$
#variable_conflict use_column
declare
  v_now  constant timestamptz := clock_timestamp();
  v_rows integer;
begin
  -- The path to the rows goes by their ids, and the starts are joined to them by a hash.
  if complete_jobs.keep then
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
  else
    delete from jobs
     using unnest(complete_jobs.ids collate "C", complete_jobs.claim_ids) as start (id, claim_id)
     where jobs.id = any (complete_jobs.ids collate "C")
       and jobs.id = start.id
       and jobs.claim_id = start.claim_id
       and jobs.status = 'running';
  end if;
  get diagnostics v_rows = row_count;

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
comment on function complete_jobs(integer, text[], bigint[], bigint[], boolean) is
  'running -> completed, for the starts that belong to these claims; returns the ids whose start is over.';
