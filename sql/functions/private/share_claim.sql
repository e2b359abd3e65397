-- share_claim: how many of the next max_jobs jobs, over all these queues, each queue has.
--
-- total: over all of them; less than max_jobs when there are no more.
-- Merges the queues without locking anything: reads a few places of each, and more of each
-- while the merge may be incomplete, for beyond the last place read of a queue that has more
-- nothing is known.
create or replace function share_claim(queues text[], max_jobs integer, out names text[], out jobs integer[],
                                       out total integer)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  v_chunk integer := least(share_claim.max_jobs, greatest(4, share_claim.max_jobs * 2 / cardinality(share_claim.queues)));
  v_more  boolean;
begin
  loop
    with head as materialized (
      select asked.queue, place.lane, place.seq, row_number() over (partition by asked.queue order by place.lane, place.seq) as nth
        from rows from (unnest(share_claim.queues), claim_segments(share_claim.queues))
             as asked (queue, lanes, seqs, beyonds)
       cross join lateral (
         select - ready.priority::bigint as lane, ready.seq
           from unnest(asked.lanes, asked.seqs, asked.beyonds) as segment (lane, seq, beyond)
          cross join lateral (
            select ready.priority, ready.seq
              from ready
             where ready.queue = asked.queue
               and (- ready.priority::bigint, ready.seq) >= (segment.lane, segment.seq)
               and - ready.priority::bigint < segment.beyond
             order by - ready.priority::bigint, ready.seq) as ready
          limit v_chunk) as place
    ), known as (
      select head.lane, head.seq from head where head.nth = v_chunk order by head.lane, head.seq limit 1
    ), next as (
      select head.queue
        from head
       where not exists (select from known) or (head.lane, head.seq) <= (select known.lane, known.seq from known)
       order by head.lane, head.seq
       limit share_claim.max_jobs
    ), share as (
      select next.queue, count(*)::integer as jobs from next group by next.queue
    )
    select array_agg(share.queue), array_agg(share.jobs), coalesce(sum(share.jobs), 0), exists (select from known)
      from share
      into share_claim.names, share_claim.jobs, share_claim.total, v_more;
    exit when not v_more or share_claim.total >= share_claim.max_jobs or v_chunk >= share_claim.max_jobs;
    v_chunk := v_chunk * 8;
  end loop;
end;
$$;
comment on function share_claim(text[], integer) is
  'Private: how many of the next max_jobs jobs, over all these queues, each queue has.';
