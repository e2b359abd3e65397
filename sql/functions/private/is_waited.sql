-- is_waited: return whether any session waits for jobs. It takes about a microsecond.
--
-- Another call at the same moment may make it return true, which costs a look into waits.
-- Without a search_path of its own, this function can be inlined. Its callers have one.
create or replace function is_waited()
  returns boolean
  language sql
  volatile
as $$
  select not (pg_catalog.pg_try_advisory_lock(lock_class('waiting'), 0)
              and pg_catalog.pg_advisory_unlock(lock_class('waiting'), 0));
$$;
comment on function is_waited() is 'Private: return whether any session waits for jobs.';
