-- holds_key: whether this session holds this key itself; is_held tells of the others.
create or replace function holds_key(class regclass, id integer)
  returns boolean
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select exists (
    select from pg_locks
     where pg_locks.pid = pg_backend_pid()
       and pg_locks.locktype = 'advisory'
       and pg_locks.classid = holds_key.class
       and pg_locks.objid = (holds_key.id::bigint & 4294967295)::oid
       and pg_locks.objsubid = 2
       and pg_locks.mode = 'ExclusiveLock');
$$;
comment on function holds_key(regclass, integer) is 'Private: whether this session holds this key itself.';
