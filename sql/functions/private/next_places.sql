-- next_places: the next places in line of these queues, after a position, in order; nothing is locked.
--
-- The position is (after_lane, after_seq).  places: where they lie in ready, at most max_places; null when there are
-- none.  reached: the position up to which the line is known now; null at its end.  deep: how much more than its share
-- is read of each of many queues; a caller doubles it when it got less than max_places.
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

  -- Each queue is walked by stretches: from the position, and then from floor to floor, because what lies between was
  -- taken.  Of many queues a part each is read: the merged line is known up to the last place of the first that has more.
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
  'Private: the next places in line of these queues, after a position, in order; nothing is locked.';
