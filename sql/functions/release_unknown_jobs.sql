-- release_unknown_jobs: give back jobs that a worker claimed without learning of them.
--
-- If the answer to claim_jobs is lost, jobs are running under a live worker that does not know them. claim_ids are the
-- claims that the worker does know. The jobs of its other claims become pending again, and their starts are subtracted
-- from attempts. Jobs that another transaction holds are left to the next call. Returns how many jobs were given back.
-- The worker must not be claiming at the same time, because it would not know that claim yet.
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
  return (give_back_claims(release_unknown_jobs.worker_id, release_unknown_jobs.claim_ids, 'unknown', null)).rescued;
end;
$$;
comment on function release_unknown_jobs(integer, bigint[]) is
  'Give back jobs that a worker claimed without learning of them; returns how many.';
