-- give_back_claims: make the running jobs of a worker's claims pending again, except those of the known claims.
--
-- It waits for nothing: jobs and claims that another transaction holds are left to the next call. why is one of:
--
--   crashed  The worker died. Each start counts as a crash, which uses up no try. A job fails at its
--            pgjobq.max_crashes-th crash (3), so that a job which kills its workers is not run forever.
--   left     The worker stopped. Each start counts as a try.
--   unknown  The worker never learned of the claim. Each start is subtracted from attempts.
--
-- worker is the worker's name, for attempts, where each try has a row unless the worker never learned of it.
-- told is an object for a log: rescued and failed, the first 40 of job_ids and failed_ids, and crashes by id for up to
-- 40 jobs that have crashed more than once.
create or replace function give_back_claims(worker_id integer, known bigint[], why text, worker text,
                                            out rescued integer, out failed integer, out job_ids text[], out told jsonb)
  language plpgsql
  volatile
  set search_path from current
as $$ #variable_conflict use_column
declare
  v_crash constant integer := (give_back_claims.why = 'crashed')::integer;
  v_most  constant integer := coalesce(nullif(current_setting('pgjobq.max_crashes', true), '')::integer, 3);
begin
  with claim as materialized (
    select claims.id, claims.job_ids
      from claims
     where claims.worker_id = give_back_claims.worker_id and claims.id <> all (give_back_claims.known)
       for update skip locked
  ), held as materialized (
    select job.id, v_crash = 1 and job.crashes + 1 >= v_most as fails,
           format('(try %s of %s, crash %s of %s)', greatest(job.attempts - job.crashes, 1), job.max_retries + 1,
                  job.crashes + v_crash, v_most) as which
      from claim
     cross join lateral unnest(claim.job_ids) as given (id)
     cross join lateral (
       select jobs.id, jobs.attempts, jobs.max_retries, jobs.crashes
         from jobs
        where jobs.id = given.id and jobs.status = 'running' and jobs.claim_id = claim.id
          for no key update skip locked) as job
  ), given_back as (
    update jobs
       set status      = case when held.fails then 'failed' else 'pending' end,
           attempts    = jobs.attempts - (give_back_claims.why = 'unknown')::integer,
           crashes     = jobs.crashes + v_crash,
           claim_id    = null,
           error       = case when give_back_claims.why = 'unknown' then jobs.error
                              else format('worker %s stopped or died while it held this job %s', give_back_claims.worker_id, held.which)
                                   || case when held.fails then '; it failed because of its crashes' else '' end end,
           failed_at   = case when held.fails then clock_timestamp() end,
           finished_at = case when held.fails then clock_timestamp() end,
           updated_at  = clock_timestamp()
      from held
     where jobs.id = any (array(select held.id from held)) and jobs.id = held.id
    returning jobs.id, held.fails, jobs.crashes, jobs.attempts, jobs.started_at, jobs.error
  ), noted as (
    insert into attempts (job_id, attempt, worker_id, worker, started_at, outcome, error_class, error)
    select given_back.id, given_back.attempts, give_back_claims.worker_id, give_back_claims.worker, given_back.started_at,
           case v_crash when 1 then 'worker died' else 'released' end, error_class(given_back.error), given_back.error
      from given_back
     where give_back_claims.why <> 'unknown'
  )
  select count(*) filter (where not given_back.fails), count(*) filter (where given_back.fails), array_agg(given_back.id),
         jsonb_build_object(
           'rescued', count(*) filter (where not given_back.fails), 'failed', count(*) filter (where given_back.fails),
           'job_ids', to_jsonb((array_agg(given_back.id))[:40]),
           'failed_ids', to_jsonb((array_agg(given_back.id) filter (where given_back.fails))[:40]),
           'crashes', (select jsonb_object_agg(often.id, often.crashes)
                         from (select given_back.id, given_back.crashes from given_back where given_back.crashes > 1 limit 40) as often))
    from given_back
    into give_back_claims.rescued, give_back_claims.failed, give_back_claims.job_ids, give_back_claims.told;
  if give_back_claims.told ->> 'failed' <> '0' then
    perform notify_waiters(give_back_claims.job_ids);
  end if;
  perform forget_claims(give_back_claims.worker_id, array(
            select claims.id from claims
             where claims.worker_id = give_back_claims.worker_id and claims.id <> all (give_back_claims.known)
               for update skip locked));
end;
$$;
comment on function give_back_claims(integer, bigint[], text, text) is
  'Private: make the running jobs of a worker''s claims pending again, except those of the known claims.';
