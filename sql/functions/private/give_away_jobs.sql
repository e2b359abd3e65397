-- give_away_jobs: put a dead worker's running jobs back in line and forget the worker.
--
-- A job whose tries are used up fails: a job that kills its worker again and again does
-- not go round for ever.  Returns how many jobs were put back and how many failed.
create or replace function give_away_jobs(worker_id integer, out rescued integer, out failed integer)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  with held as (
    update jobs
       set status      = case when jobs.attempts > jobs.max_retries then 'failed' else 'pending' end,
           error       = format('worker %s stopped or died while it held this job (try %s of %s)',
                                give_away_jobs.worker_id, jobs.attempts, jobs.max_retries + 1),
           failed_at   = case when jobs.attempts > jobs.max_retries then statement_timestamp() end,
           finished_at = case when jobs.attempts > jobs.max_retries then statement_timestamp() end,
           updated_at  = statement_timestamp()
     where jobs.id = any (array(
             select unnest(claims.job_ids) from claims where claims.worker_id = give_away_jobs.worker_id))
       and jobs.status = 'running'
       and jobs.worker_id = give_away_jobs.worker_id
    returning jobs.status
  )
  select count(*) filter (where held.status = 'pending'), count(*) filter (where held.status = 'failed')
    from held
    into give_away_jobs.rescued, give_away_jobs.failed;
  delete from claims   where claims.worker_id = give_away_jobs.worker_id;
  delete from doorbell where doorbell.worker_id = give_away_jobs.worker_id;
  delete from workers  where workers.id = give_away_jobs.worker_id;
end;
$$;
comment on function give_away_jobs(integer) is
  'Private: put a dead worker''s running jobs back in line, or fail those whose tries are used up.';
