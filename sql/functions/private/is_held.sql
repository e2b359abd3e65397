-- is_held: return whether another session holds this key of this worker (see lock_class).
--
-- Without a search_path of its own, this function can be inlined, so that an enqueue that checks the keys of many
-- workers pays for no calls.
create or replace function is_held(key text, id integer)
  returns boolean
  language sql
  volatile
as $$
  select not (pg_catalog.pg_try_advisory_lock_shared(lock_class(is_held.key), is_held.id)
              and pg_catalog.pg_advisory_unlock_shared(lock_class(is_held.key), is_held.id));
$$;
comment on function is_held(text, integer) is 'Private: return whether another session holds this key of this worker.';
