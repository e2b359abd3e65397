-- was_settled: whether this very start of a job ended in that status already.
--
-- Makes settling idempotent: the answer to a first call may have been lost.
create or replace function was_settled(worker_id integer, id text, attempts integer, status text)
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
       and jobs.attempts = was_settled.attempts
       and jobs.worker_id = was_settled.worker_id
       and jobs.status = was_settled.status);
end;
$$;
comment on function was_settled(integer, text, integer, text) is
  'Private: whether this very start of a job ended in that status already.';
