-- rings_waiting: how many transactions of the cluster stand in line to notify somebody.
--
-- A commit that carries a NOTIFY holds one lock of the cluster until it is on disk.  Where
-- flushes are slow the line for it bounds how often a bell can ring, so that a worker cannot
-- tell from its bells alone that it would do better to poll.
create or replace function rings_waiting()
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
comment on function rings_waiting() is
  'How many transactions of the cluster stand in line to notify somebody.';
