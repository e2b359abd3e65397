-- ready_queues: the names of the queues that have a job ready.
--
-- Steps from one name to the next by the index: its cost is the number of queues, not
-- of jobs.
create or replace function ready_queues()
  returns setof text
  language sql
  stable
  security definer
  set search_path from current
  set enable_seqscan = off
as $$
  with recursive step (queue) as (
    (select ready.queue from ready order by ready.queue limit 1)
    union all
    select (select ready.queue from ready where ready.queue > step.queue order by ready.queue limit 1)
      from step
     where step.queue is not null
  )
  select step.queue from step where step.queue is not null;
$$;
comment on function ready_queues() is 'Private: the names of the queues that have a job ready.';
