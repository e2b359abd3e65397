-- take_places: take up to max_jobs places from the head of the queues (null: of every queue), and lock their jobs.
--
-- ids: the jobs, in the order in which they should run; null when there is none.  They are locked until the end
-- of the transaction, and their places are gone from ready.  A place or job that another transaction holds is
-- skipped, never waited for.  orphans: how many places had a job that may not be claimed, for drop_orphans.
--
-- Each queue is asked for its share of the next jobs, and its segments are walked in order, no further than
-- needed.  When one has less to give, for others hold its places, the rest is asked for what is still wanted.
--
-- The path from place to job goes by the key alone, and the settings below pin it: no statistics, old or missing,
-- and no plan made while the tables were tiny can turn it into a scan of jobs, or into a sort of the whole line.
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
declare
  v_single constant boolean := take_places.queues is null and take_places.max_jobs = 1;
  v_queues text[]  := coalesce(take_places.queues, array(select ready_queues(in_order => v_single)));
  v_wanted integer := take_places.max_jobs;
  v_share  record;
  v_ids    text[];
  v_asked  integer;
begin
  loop
    if v_single or cardinality(v_queues) < 2 then
      select v_queues[1:1] as names, array[v_wanted] as jobs, v_wanted as total into v_share;
    else
      v_share := share_claim(v_queues, v_wanted);
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
      into v_ids, take_places.orphans;
    take_places.ids := take_places.ids || v_ids;
    v_asked := v_wanted;
    v_wanted := v_wanted - coalesce(cardinality(v_ids), 0);
    exit when v_wanted = 0 or cardinality(v_queues) < 2 or v_share.total < v_asked or take_places.orphans > 0;
    v_queues := willing_queues(v_queues, v_share.names, v_share.jobs, v_ids);
  end loop;
end;
$$;
comment on function take_places(text[], integer) is
  'Private: take up to max_jobs places from the head of the queues, and lock their jobs.';
