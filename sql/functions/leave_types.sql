-- leave_types: record which types of jobs a worker leaves to others, because it has no handler for them.
--
-- Replaces the types of the previous call. Call it when the types change, not with every claim. claim_jobs does not
-- read them, so pass the same types to it. unserved_types reads them, and so do enqueues: a worker is not notified of a
-- job whose type it leaves to others.
create or replace function leave_types(worker_id integer, types text[])
  returns void
  language sql
  volatile
  security definer
  set search_path from current
as $$
  update workers
     set left_types = coalesce(leave_types.types, '{}')
   where workers.id = leave_types.worker_id;
$$;
comment on function leave_types(integer, text[]) is
  'Record which types of jobs a worker leaves to others, because it has no handler for them.';
