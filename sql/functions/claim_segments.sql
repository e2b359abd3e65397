-- claim_segments: the stretches of ready that can hold a job of these queues, in the order
-- of a claim.
--
-- One begins at the front of each queue, and one at each floor: from (lane, seq), where lane is the
-- negated priority, to before the lane `beyond`.  Between them lies what is known to be taken.
create or replace function claim_segments(queues text[])
  returns table (queue text, lane bigint, seq bigint, beyond bigint)
  language plpgsql  -- keeps its plan; a sql function plans on every call before PostgreSQL 18
  stable
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  return query
  select point.queue, point.lane, point.seq,
         lead(point.lane, 1, 2147483649) over (partition by point.queue order by point.lane)
    from (select asked.queue, -2147483648, 0
            from unnest(claim_segments.queues) as asked (queue)
           union all
          select floors.queue, - floors.priority::bigint, floors.seq
            from floors
           where floors.queue = any (claim_segments.queues)) as point (queue, lane, seq)
   order by point.queue, point.lane;
end;
$$;
comment on function claim_segments(text[]) is
  'Private: the stretches of ready that can hold a job of these queues, in the order of a claim.';
