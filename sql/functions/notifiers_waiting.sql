-- notifiers_waiting: count the transactions of the cluster that are waiting to notify.
--
-- A commit that carries a NOTIFY holds one lock of the whole cluster until it is on disk. If flushes are slow, the
-- queue for that lock limits how often a worker can be notified, so a worker cannot tell from its notifications alone
-- that it should poll.
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
comment on function notifiers_waiting() is 'Count the transactions of the cluster that are waiting to notify.';
