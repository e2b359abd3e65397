-- open_enqueues: the open transactions of others that may have enqueued.
--
-- Virtual transaction ids of those that hold RowExclusiveLock on jobs: an INSERT takes
-- it first and keeps it to the end.  Whoever is not in the answer has ended, and what it
-- enqueued is visible to the next statement, or starts later, and sees the doorbell.
create or replace function open_enqueues()
  returns text[]
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select coalesce(array_agg(distinct pg_locks.virtualtransaction), '{}')
    from pg_locks
   where pg_locks.locktype = 'relation'
     and pg_locks.database = (select pg_database.oid from pg_database where pg_database.datname = current_database())
     and pg_locks.relation = 'jobs'::regclass
     and pg_locks.mode = 'RowExclusiveLock'
     and pg_locks.granted
     and pg_locks.pid is distinct from pg_backend_pid();
$$;
comment on function open_enqueues() is
  'The open transactions of others that may have enqueued, as virtual transaction ids.';
