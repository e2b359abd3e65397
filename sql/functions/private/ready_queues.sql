-- ready_queues: return the names of the queues that may have a job in ready.
--
-- These are the queues that have floors, and those found between them by stepping through the index from one name to
-- the next. The cost depends on the number of queues, and not on the number of jobs or of places that were taken.
create or replace function ready_queues()
  returns setof text
  language plpgsql  -- keeps its plan; before PostgreSQL 18, a sql function is planned on every call
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
    -- The upper bound must be part of the index condition, because places beyond it were taken.
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
comment on function ready_queues() is 'Private: return the names of the queues that may have a job in ready.';
