-- take_places: take up to max_jobs places from the head of the queues, and lock their jobs.
--
-- ids: the jobs, in the order in which they should run; null when there is none.  They
-- are locked until the end of the transaction, and their places are gone from ready.  A
-- place or job that another transaction holds is skipped, never waited for.  orphans: how
-- many places were met whose job may not be claimed; they are left to drop_orphans.
--
-- Each queue is asked for its share of the next jobs, and its segments are walked in order, no
-- further than needed.
--
-- The path from place to job goes by the key alone, and the settings below pin it: no
-- statistics, old or missing, and no plan made while the tables were tiny can turn it into
-- a scan of jobs, or into a sort of the whole line.
create or replace function take_places(queues text[], max_jobs integer, out ids text[], out orphans bigint)
  language plpgsql  -- keeps its plan; a sql function plans on every call before PostgreSQL 18
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set enable_memoize = off
as $$
#variable_conflict use_column
declare
  v_share record;
begin
  if cardinality(take_places.queues) > 1 then
    v_share := share_claim(take_places.queues, take_places.max_jobs);
  else
    select take_places.queues as names, array[take_places.max_jobs] as jobs into v_share;
  end if;
  with picked as materialized (
    select lane.*
      from rows from (unnest(v_share.names, v_share.jobs), claim_segments(v_share.names))
           as asked (queue, jobs, lanes, seqs, beyonds)
     cross join lateral (
       select place.*, free.id
         from unnest(asked.lanes, asked.seqs, asked.beyonds) as segment (lane, seq, beyond)
        cross join lateral (
              select ready.ctid as tid, ready.queue, ready.priority, ready.seq, ready.job_id
                from ready
               where ready.queue = asked.queue
                 and (- ready.priority::bigint, ready.seq) >= (segment.lane, segment.seq)
                 and - ready.priority::bigint < segment.beyond
               order by - ready.priority::bigint, ready.seq
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
        limit asked.jobs) as lane
  ), left_line as (
    delete from ready
     where ready.ctid = any (array(select picked.tid from picked where picked.id is not null))
  )
  select array_agg(picked.id order by picked.priority desc, picked.seq) filter (where picked.id is not null),
         count(*) filter (where picked.id is null)
    from picked
    into take_places.ids, take_places.orphans;
end;
$$;
comment on function take_places(text[], integer) is
  'Private: take up to max_jobs places from the head of the queues, and lock their jobs.';
