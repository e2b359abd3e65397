-- ready_queues: the names of the queues that may have a job ready.
--
-- Those that have floors, and those found between them by steps from one name to the next in
-- the index: its cost is the number of queues, not of jobs, taken ones included.
create or replace function ready_queues()
  returns setof text
  language plpgsql  -- keeps its plan; a sql function plans on every call before PostgreSQL 18
  stable
  security definer
  set search_path from current
  set enable_seqscan = off
  set plan_cache_mode = force_generic_plan
  set jit = off
as $$
#variable_conflict use_column
begin
  return query
  with recursive known (queue) as materialized (
    select distinct floors.queue from floors
  ), gap (after, before) as (
    select known.queue, lead(known.queue) over (order by known.queue)
      from (select '' union all select known.queue from known) as known (queue)
  ), step (queue, before) as (
    select (select ready.queue from ready
             where ready.queue > gap.after and (gap.before is null or ready.queue < gap.before)
             order by ready.queue limit 1), gap.before
      from gap
    union all
    select (select ready.queue from ready
             where ready.queue > step.queue and (step.before is null or ready.queue < step.before)
             order by ready.queue limit 1), step.before
      from step
     where step.queue is not null
  )
  select known.queue from known
  union all
  select step.queue from step where step.queue is not null;
end;
$$;
comment on function ready_queues() is 'Private: the names of the queues that may have a job ready.';
