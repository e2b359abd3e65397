-- watch_key: the key, in class ready, of the one who polls for this set of queues.
--
-- 0 for every queue (null).  Else a negative number from the names: two sets may share one by
-- chance, and then one of their workers sleeps where it might have polled; no more.
create or replace function watch_key(queues text[])
  returns integer
  language sql
  immutable
  security definer
  set search_path from current
as $$
  select coalesce(-1 - (hashtext(watch_key.queues::text) & 1073741823), 0);
$$;
comment on function watch_key(text[]) is 'Private: the key of the one who polls for this set of queues.';
