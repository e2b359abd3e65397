-- waiters: return the process ids of the sessions that wait for jobs, because they hold the shared key `waiting`.
create or replace function waiters()
  returns setof integer
  language sql
  volatile
  set search_path from current
as $$
  select pg_locks.pid
    from pg_locks
   where pg_locks.locktype = 'advisory'
     and pg_locks.database = (select pg_database.oid from pg_database where pg_database.datname = current_database())
     and pg_locks.classid = lock_class('waiting')::bigint::oid
     and (pg_locks.objid, pg_locks.objsubid) = (0, 2)
     and pg_locks.granted
     and pg_locks.mode = 'ShareLock';
$$;
comment on function waiters() is 'Private: return the process ids of the sessions that wait for jobs.';
