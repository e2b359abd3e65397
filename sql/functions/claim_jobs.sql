-- claim_jobs: hand up to max_jobs due jobs to one worker and mark them running.
--
-- Higher priority first, then the order in which the jobs became due, over all the
-- queues asked for (null: every queue).  No row when nothing can be claimed.  A job
-- that another transaction holds is skipped, never waited for.  attempts counts this
-- start.  claim_id names the batch: hand it to complete_jobs with the last of its jobs.
--
-- enable_nestloop: the join below, of the claimed jobs with their order, must be a hash
-- join however few the planner thinks they are.
create or replace function claim_jobs(worker_id integer, queues text[] default null, max_jobs integer default 1)
  returns table (claim_id bigint, id text, queue text, type text, data jsonb, priority integer,
                 attempts integer, max_retries integer, execute_at timestamptz, error text,
                 created_at timestamptz, started_at timestamptz)
  language plpgsql  -- keeps its plan; a sql function plans on every call before PostgreSQL 18
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_nestloop = off
as $$
#variable_conflict use_column
declare
  v_wanted integer := claim_jobs.max_jobs;
  v_taken  record;
begin
  if coalesce(claim_jobs.max_jobs, 0) < 1 then
    raise exception using errcode = 'JQ001',
      message = format('max_jobs: %s is not a number of jobs', coalesce(claim_jobs.max_jobs::text, 'null')),
      hint    = 'Give 1 or more.';
  end if;
  if exists (select from scheduled where scheduled.execute_at <= statement_timestamp()) then
    perform promote_jobs();
  end if;

  while v_wanted > 0 loop
    v_taken := take_places(claim_jobs.queues, v_wanted);
    return query
    with claimed as (
      update jobs
         set status     = 'running',
             attempts   = jobs.attempts + 1,
             worker_id  = claim_jobs.worker_id,
             started_at = statement_timestamp(),
             updated_at = statement_timestamp()
       where jobs.id = any (v_taken.ids)
      returning jobs.*
    ), batch as (
      insert into claims (worker_id, job_ids)
      select claim_jobs.worker_id, array_agg(claimed.id)
        from claimed
      having count(*) > 0
      returning claims.id
    ), line as (
      select taken.id, min(taken.nth) as nth
        from unnest(v_taken.ids) with ordinality as taken (id, nth)
       group by taken.id
    )
    select batch.id, claimed.id, claimed.queue, claimed.type, claimed.data, claimed.priority,
           claimed.attempts::integer, claimed.max_retries::integer, claimed.execute_at::timestamptz, claimed.error,
           claimed.created_at, claimed.started_at
      from claimed
      join line on line.id = claimed.id
     cross join batch
     order by line.nth;

    exit when v_taken.orphans = 0 or drop_orphans(claim_jobs.queues) = 0;
    v_wanted := v_wanted - coalesce(cardinality(v_taken.ids), 0);
  end loop;
end;
$$;
comment on function claim_jobs(integer, text[], integer) is
  'Hand up to max_jobs due jobs to one worker and mark them running; no row when nothing can be claimed.';
