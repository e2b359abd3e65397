-- was_settled: return whether this job has this status, and its last start belongs to this claim.
--
-- This makes settling repeatable, because the answer to a first call may have been lost.
create or replace function was_settled(id text, claim_id bigint, status text)
  returns boolean
  language plpgsql
  stable
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
begin
  return exists (
    select from jobs
     where jobs.id = was_settled.id
       and jobs.claim_id = was_settled.claim_id
       and jobs.status = was_settled.status);
end;
$$;
comment on function was_settled(text, bigint, text) is
  'Private: return whether this job has this status, and its last start belongs to this claim.';
