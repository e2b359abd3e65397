-- ready_queues: the names of the queues that may have a job ready.
--
-- Those that have floors, and those found between them by steps from one name to the next in
-- the index: its cost is the number of queues, not of jobs, taken ones included.
-- in_order: only those that have a place, and in the order of their first ones, as a claim of
-- a single job asks them.
create or replace function ready_queues(in_order boolean default false)
  returns setof text
  language plpgsql  -- keeps its plan; a sql function plans on every call before PostgreSQL 18
  stable
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
  return query
  with recursive known (names) as (
    select array[''] || array(select distinct floors.queue from floors order by floors.queue)
  ), step (queue, lane, seq, before) as (
    select edge.queue, head.lane, head.seq, lead(edge.queue) over (order by edge.queue)
      from known
     cross join lateral rows from (
             unnest(known.names), claim_segments(case when ready_queues.in_order then known.names else '{}' end))
           as edge (queue, lanes, seqs, beyonds)
      left join lateral (
        select place.lane, place.seq
          from unnest(edge.lanes, edge.seqs, edge.beyonds) as segment (lane, seq, beyond)
         cross join lateral (
           select - ready.priority::bigint as lane, ready.seq
             from ready
            where ready.queue = edge.queue
              and (- ready.priority::bigint, ready.seq) >= (segment.lane, segment.seq)
              and - ready.priority::bigint < segment.beyond
            order by - ready.priority::bigint, ready.seq
            limit 1) as place
         limit 1) as head on true
    union all
    -- The upper bound must stand in the index condition: beyond it lie taken places.
    select next.queue, next.lane, next.seq, step.before
      from step
     cross join lateral (
       (select ready.queue, - ready.priority::bigint as lane, ready.seq
          from ready
         where ready.queue > step.queue and ready.queue < step.before
         order by ready.queue, - ready.priority::bigint, ready.seq
         limit 1)
       union all
       (select ready.queue, - ready.priority::bigint, ready.seq
          from ready
         where step.before is null and ready.queue > step.queue
         order by ready.queue, - ready.priority::bigint, ready.seq
         limit 1)) as next
  )
  select step.queue
    from step
   where step.queue <> '' and (not ready_queues.in_order or step.lane is not null)
   order by case when ready_queues.in_order then step.lane end, case when ready_queues.in_order then step.seq end;
end;
$$;
comment on function ready_queues(boolean) is 'Private: the names of the queues that may have a job ready.';
