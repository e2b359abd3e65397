-- claim_segments: for each of these queues, the stretches of ready that can hold a job, in the
-- order of a claim.
--
-- One row a queue, in the order given; its stretches are the elements of the arrays.  The first
-- begins at the front, and one at each floor: from (lane, seq), where lane is the negated
-- priority, to before the lane `beyond`.  Between them lies what is known to be taken.
create or replace function claim_segments(queues text[])
  returns table (lanes bigint[], seqs bigint[], beyonds bigint[])
  language plpgsql  -- keeps its plan; a sql function plans on every call before PostgreSQL 18
  stable
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
begin
  return query
  select (-2147483648)::bigint || known.lanes, 0::bigint || known.seqs, known.lanes || 2147483649
    from unnest(claim_segments.queues) with ordinality as asked (queue, nth)
   cross join lateral (
     select array_agg(- floors.priority::bigint order by - floors.priority::bigint) as lanes,
            array_agg(floors.seq order by - floors.priority::bigint) as seqs
       from floors
      where floors.queue = asked.queue) as known
   order by asked.nth;
end;
$$;
comment on function claim_segments(text[]) is
  'Private: for each of these queues, the stretches of ready that can hold a job, in the order of a claim.';
