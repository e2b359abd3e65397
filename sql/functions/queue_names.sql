-- queue_names: the names of the queues that have jobs in line, that a worker serves by name, or that are paused.
--
-- Cheap: the cost is that of the queues, and of the jobs that are not due yet.
create or replace function queue_names()
  returns setof text
  language sql
  stable
  security definer
  set search_path from current
as $$
  select ready_queues()
  union
  select scheduled.queue from scheduled
  union
  select unnest(workers.queues) from workers
  union
  select pauses.name from pauses where pauses.kind = 'queue';
$$;
comment on function queue_names() is
  'The names of the queues that have jobs in line, that a worker serves by name, or that are paused.';
