-- is_held: whether some other session holds this key.
--
-- A worker tells its state by keys, exclusive session locks of its listener: they cost no
-- write, are seen at once whatever the snapshot, and fall when the worker dies.
--
--   (workers, id)   it lives               (ready, id)   it polls: looks for jobs by itself
--   (doorbell, id)  it sleeps: ring it     (claims, id)  it is busy: ring others first
--
-- And for all: (doorbell, 0) is shared by those who sleep or poll; (ready, 0) is held by one
-- who polls, serves every queue and is not busy.
--
-- Without a search_path of its own, and with every name qualified instead: so PostgreSQL can
-- inline it, and an enqueue that looks at the keys of many workers pays for no call.
create or replace function is_held(class regclass, id integer)
  returns boolean
  language sql
  volatile
as $$
  select not (pg_catalog.pg_try_advisory_lock_shared(is_held.class::pg_catalog.oid::integer, is_held.id)
              and pg_catalog.pg_advisory_unlock_shared(is_held.class::pg_catalog.oid::integer, is_held.id));
$$;
comment on function is_held(regclass, integer) is 'Private: whether some other session holds this key.';
