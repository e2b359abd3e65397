-- open_places: the open transactions of others that may have numbered a place.
--
-- Virtual transaction ids of those that hold RowExclusiveLock on ready: an INSERT takes it
-- before it draws a seq, and keeps it to the end.
create or replace function open_places()
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
     and pg_locks.relation = 'ready'::regclass
     and pg_locks.mode = 'RowExclusiveLock'
     and pg_locks.pid is distinct from pg_backend_pid();
$$;
comment on function open_places() is
  'Private: the open transactions of others that may have numbered a place, as virtual transaction ids.';
