-- claim_jobs: hand up to max_jobs due jobs to one worker and mark them running.
--
-- Higher priority first, then the order in which the jobs became due, over all the
-- queues asked for (null: every queue).  No row when nothing can be claimed.  A job
-- that another transaction holds is skipped, never waited for.  attempts counts this
-- start.  claim_id names the batch: hand it to complete_jobs with the last of its jobs.
--
-- The first statement takes places in line and locks their jobs; the second marks the
-- jobs.  The path from place to job goes by the key alone, and the settings below pin
-- it, so that no statistics, old or missing, can turn it into a scan of jobs.
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
  set enable_bitmapscan = off
  set enable_nestloop = off
as $$
#variable_conflict use_column
declare
  v_queues  text[];
  v_wanted  integer := claim_jobs.max_jobs;
  v_ids     text[];
  v_orphans bigint;
begin
  if coalesce(claim_jobs.max_jobs, 0) < 1 then
    raise exception using errcode = 'JQ001',
      message = format('max_jobs: %s is not a number of jobs', coalesce(claim_jobs.max_jobs::text, 'null')),
      hint    = 'Give 1 or more.';
  end if;
  if exists (select from scheduled where scheduled.execute_at <= statement_timestamp()) then
    perform promote_jobs();
  end if;
  v_queues := coalesce(claim_jobs.queues, array(select ready_queues()));

  while v_wanted > 0 loop
    with picked as materialized (
      select lane.*
        from unnest(v_queues) as asked (queue)
       cross join lateral (
         select place.*, free.id
           from (select ready.ctid as tid, ready.queue, ready.priority, ready.seq, ready.job_id
                   from ready
                  where ready.queue = asked.queue
                  order by ready.priority desc, ready.seq
                    for update skip locked) as place
           left join lateral (
                select jobs.id
                  from jobs
                 where jobs.id = place.job_id
                   and jobs.status = 'pending'
                   and jobs.queue = place.queue
                   and jobs.priority = place.priority
                   and (jobs.execute_at is null or jobs.execute_at <= statement_timestamp())
                   for no key update skip locked) as free on true
          where free.id is not null or not is_claimable(place.job_id, place.queue, place.priority)
          limit v_wanted) as lane
       order by lane.priority desc, lane.seq
       limit v_wanted
    ), left_line as (
      delete from ready
       where ready.ctid = any (array(select picked.tid from picked where picked.id is not null))
    )
    select array_agg(picked.id order by picked.priority desc, picked.seq) filter (where picked.id is not null),
           count(*) filter (where picked.id is null)
      from picked
      into v_ids, v_orphans;

    return query
    with claimed as (
      update jobs
         set status     = 'running',
             attempts   = jobs.attempts + 1,
             worker_id  = claim_jobs.worker_id,
             started_at = statement_timestamp(),
             updated_at = statement_timestamp()
       where jobs.id = any (v_ids)
      returning jobs.*
    ), batch as (
      insert into claims (worker_id, job_ids)
      select claim_jobs.worker_id, array_agg(claimed.id)
        from claimed
      having count(*) > 0
      returning claims.id
    ), line as (
      select taken.id, min(taken.nth) as nth
        from unnest(v_ids) with ordinality as taken (id, nth)
       group by taken.id
    )
    select batch.id, claimed.id, claimed.queue, claimed.type, claimed.data, claimed.priority,
           claimed.attempts, claimed.max_retries, claimed.execute_at, claimed.error,
           claimed.created_at, claimed.started_at
      from claimed
      join line on line.id = claimed.id
     cross join batch
     order by line.nth;

    exit when v_orphans = 0 or drop_orphans(v_queues) = 0;
    v_wanted := v_wanted - coalesce(cardinality(v_ids), 0);
  end loop;
end;
$$;
comment on function claim_jobs(integer, text[], integer) is
  'Hand up to max_jobs due jobs to one worker and mark them running; no row when nothing can be claimed.';
