-- release_unknown_jobs: give back what a worker claimed without learning of it.
--
-- When the answer to claim_jobs is lost, jobs are running under a live worker that does
-- not know them.  claim_ids: the claims that it does know.  Jobs of its other claims go
-- back in line, and their start is taken back; those whose rows another transaction holds
-- wait for the next call.  Returns how many.  Only for a worker that is not claiming at
-- the same time.
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
begin
  return (give_back_claims(release_unknown_jobs.worker_id, release_unknown_jobs.claim_ids, 'unknown')).rescued;
end;
$$;
comment on function release_unknown_jobs(integer, bigint[]) is
  'Give back what a worker claimed without learning of it; returns how many jobs.';
