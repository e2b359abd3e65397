-- ready_lanes: return the lanes (a queue and a negated priority) that have a floor or a place in ready.
--
-- It steps through the index from lane to lane between the floors, as ready_queues does from queue to queue.
create or replace function ready_lanes(out queue text, out lane bigint)
  returns setof record
  language plpgsql
  stable
  set search_path from current
as $$
#variable_conflict use_column
begin
  return query
  with recursive known (queue, lane, next_queue, next_lane) as (
    select edge.queue, edge.lane, lead(edge.queue) over line, lead(edge.lane) over line
      from (select '' as queue, 0::bigint as lane union select floors.queue, floors.lane from floors) as edge
    window line as (order by edge.queue, edge.lane)
  ), step (queue, lane, next_queue, next_lane) as (
    select known.* from known
    union all
    select found.queue, found.lane, step.next_queue, step.next_lane
      from step
     cross join lateral (
       (select ready.queue, ready.lane
          from ready
         where (ready.queue, ready.lane) > (step.queue, step.lane)
           and (ready.queue, ready.lane) < (step.next_queue, step.next_lane)
         order by ready.queue, ready.lane, ready.seq
         limit 1)
       union all
       (select ready.queue, ready.lane
          from ready
         where step.next_queue is null and (ready.queue, ready.lane) > (step.queue, step.lane)
         order by ready.queue, ready.lane, ready.seq
         limit 1)) as found
  )
  select step.queue, step.lane from step where step.queue <> '';
end;
$$;
comment on function ready_lanes() is 'Private: return the lanes that have a floor or a place in ready.';
