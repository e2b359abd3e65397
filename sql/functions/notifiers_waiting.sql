-- notifiers_waiting: how many transactions of the cluster stand in line to notify.
--
-- A commit that carries a NOTIFY holds one lock of the cluster until it is on disk.  Where
-- flushes are slow the line for it bounds how often a worker can be notified, so that it
-- cannot tell from its notifications alone that it would do better to poll.
create or replace function notifiers_waiting()
  returns integer
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select count(*)::integer
    from pg_locks
   where pg_locks.locktype = 'object'
     and pg_locks.database = 0::oid
     and pg_locks.classid = 'pg_catalog.pg_database'::regclass
     and pg_locks.objid = 0::oid
     and not pg_locks.granted;
$$;
comment on function notifiers_waiting() is 'How many transactions of the cluster stand in line to notify.';
