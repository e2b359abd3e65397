-- live_workers: return the ids of the workers that are alive.
--
-- A worker is alive if it holds its lock, or if it sent its last heartbeat less than 30 seconds ago. key: return the
-- workers that hold another key instead, such as asleep or polling (see lock_class).
create or replace function live_workers(key text default 'alive')
  returns setof integer
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select workers.id
    from workers
   where live_workers.key = 'alive' and workers.heartbeat_at > clock_timestamp() - interval '30 seconds'
  union
  select pg_locks.objid::bigint::integer
    from pg_locks
   where pg_locks.locktype = 'advisory'
     and pg_locks.database = (select pg_database.oid from pg_database where pg_database.datname = current_database())
     and pg_locks.classid = lock_class(live_workers.key)::oid
     and pg_locks.objid <> 0::oid  -- the keys anyone and everything
     and pg_locks.objsubid = 2
     and pg_locks.granted;
$$;
comment on function live_workers(text) is 'Return the ids of the workers that hold their lock, or have sent a heartbeat in the last 30 seconds.';
