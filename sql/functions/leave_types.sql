-- leave_types: a worker says which types of jobs it leaves to other workers, because it has no handler for them.
--
-- In place of what it said before.  Call it when that changes, not with every claim.  claim_jobs does not go by it: give
-- the same types there.  unserved_types does, and workers that leave no type are notified first.
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
  'A worker says which types of jobs it leaves to other workers, because it has no handler for them.';
