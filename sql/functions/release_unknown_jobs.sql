-- release_unknown_jobs: give back what a worker claimed without learning of it.
--
-- When the answer to claim_jobs is lost with the connection, the jobs are running under a
-- live worker that does not know them.  claim_ids: the batches it does know.  Jobs of its
-- other batches go back in line, and their start is taken back.  Returns how many.  Only
-- for a worker that is not claiming at the same time.
create or replace function release_unknown_jobs(worker_id integer, claim_ids bigint[])
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
declare
  v_ids      text[];
  v_released integer;
begin
  with unknown as (
    delete from claims
     where claims.worker_id = release_unknown_jobs.worker_id
       and claims.id <> all (release_unknown_jobs.claim_ids)
    returning claims.job_ids
  )
  select array_agg(held.id)
    from unknown
   cross join lateral unnest(unknown.job_ids) as held (id)
    into v_ids;
  update jobs
     set status     = 'pending',
         attempts   = jobs.attempts - 1,
         updated_at = statement_timestamp()
   where jobs.id = any (v_ids)
     and jobs.status = 'running'
     and jobs.worker_id = release_unknown_jobs.worker_id;
  get diagnostics v_released = row_count;
  return v_released;
end;
$$;
comment on function release_unknown_jobs(integer, bigint[]) is
  'Give back what a worker claimed without learning of it; returns how many jobs.';
