-- job_result: return what the handler of a completed job returned.
--
-- Null if the job has not completed, returned nothing, or does not exist.
create or replace function job_result(id text)
  returns jsonb
  language sql
  stable
  security definer
  set search_path from current
as $$
  select results.result
    from results
    join jobs on jobs.id = results.job_id
   where results.job_id = job_result.id collate "C"
     and jobs.status = 'completed'
     and jobs.claim_id is not distinct from results.claim_id;
$$;
comment on function job_result(text) is 'Return what the handler of a completed job returned; null if it returned nothing.';
