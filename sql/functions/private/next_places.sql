-- next_places: read the next places of these queues in the order of the line, without locking them.
--
-- Reading begins after the position (after_lane, after_seq).
--
--   deep     If there are many queues, deep times a share of max_places is read from each. The caller doubles it if it
--            got fewer than max_places.
--   places   the ctids of at most max_places rows of ready; null if there are none
--   reached  the position up to which the line has been read; null at its end
create or replace function next_places(queues text[], after_lane bigint, after_seq bigint, max_places bigint,
                                       deep bigint default 1, out places tid[], out reached bigint[])
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_chunk bigint := next_places.max_places;
begin
  if cardinality(next_places.queues) = 1
     and not exists (select from floors
                      where floors.queue = next_places.queues[1]
                        and (floors.lane, floors.seq - 1) > (next_places.after_lane, next_places.after_seq)) then
    select array_agg(place.tid), case when count(*) = next_places.max_places then max(array[place.lane, place.seq]) end
      from (select ready.ctid as tid, ready.lane, ready.seq
              from ready
             where ready.queue = next_places.queues[1]
               and (ready.lane, ready.seq) > (next_places.after_lane, next_places.after_seq)
             order by ready.lane, ready.seq
             limit next_places.max_places) as place
      into places, reached;
    return;
  end if;

  -- Each queue is read in stretches, one from the position and one from each floor after it, because the places below a
  -- floor were taken. If a queue has more places than were read, the merged line is known only up to the last of those.
  if cardinality(next_places.queues) > 1 then
    v_chunk := least(v_chunk, (v_chunk * 2 / cardinality(next_places.queues) + 1) * next_places.deep);
  end if;
  with place as materialized (
    select asked.queue, next.*, row_number() over (partition by asked.queue order by next.lane, next.seq) as nth
      from unnest(next_places.queues) as asked (queue)
     cross join lateral (
       select found.*
         from (select edge.lane, edge.seq, lead(edge.lane, 1, 2147483649) over (order by edge.lane, edge.seq) as beyond
                 from (select next_places.after_lane, next_places.after_seq
                       union all
                       select floors.lane, floors.seq - 1
                         from floors
                        where floors.queue = asked.queue
                          and (floors.lane, floors.seq - 1) > (next_places.after_lane, next_places.after_seq))
                   as edge (lane, seq)) as stretch
        cross join lateral (
          select ready.ctid as tid, ready.lane, ready.seq
            from ready
           where ready.queue = asked.queue
             and (ready.lane, ready.seq) > (stretch.lane, stretch.seq)
             and ready.lane < stretch.beyond
           order by ready.lane, ready.seq) as found
        limit v_chunk) as next
  ), known (at) as (
    select min(array[place.lane, place.seq]) from place where place.nth = v_chunk
  ), line as (
    select place.tid, array[place.lane, place.seq] as at
      from place
     where coalesce(array[place.lane, place.seq] <= (select known.at from known), true)
     order by place.lane, place.seq
     limit next_places.max_places
  )
  select array_agg(line.tid) filter (where line.tid is not null),
         case when count(line.tid) = next_places.max_places then max(line.at) else min(known.at) end
    from known left join line on true
    into places, reached;
end;
$$;
comment on function next_places(text[], bigint, bigint, bigint, bigint) is
  'Private: read the next places of these queues in the order of the line; this locks nothing.';
