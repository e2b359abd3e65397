-- ready_queues: the names of the queues that may have a job ready.
--
-- Those that have floors, and those found between them by steps from one name to the next in the index: the cost is
-- the number of queues, not of jobs, including those that were taken.
create or replace function ready_queues()
  returns setof text
  language plpgsql  -- keeps its plan; a sql function plans on every call before PostgreSQL 18
  stable
  set search_path from current
as $$
#variable_conflict use_column
begin
  return query
  with recursive known (name, next) as (
    select edge.name, lead(edge.name) over (order by edge.name)
      from (select '' as name union select floors.queue from floors) as edge
  ), step (name, next) as (
    select known.name, known.next from known
    union all
    -- The upper bound must stand in the index condition, because beyond it lie places that were taken.
    select found.name, step.next
      from step
     cross join lateral (
       (select ready.queue as name
          from ready
         where ready.queue > step.name and ready.queue < step.next
         order by ready.queue, ready.lane, ready.seq
         limit 1)
       union all
       (select ready.queue
          from ready
         where step.next is null and ready.queue > step.name
         order by ready.queue, ready.lane, ready.seq
         limit 1)) as found
  )
  select step.name from step where step.name <> '';
end;
$$;
comment on function ready_queues() is 'Private: the names of the queues that may have a job ready.';
