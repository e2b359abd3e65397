-- hold_keys: make this session hold exactly these keys of a worker.
--
-- keys are names of lock_class, and also 'anyone' (asleep 0, shared) and 'everything' (polling 0). New keys are taken
-- before the others are released. Returns false, and changes nothing, if another session holds a new key. An enqueue
-- holds a key for a microsecond to check it, so this tries for a fifth of a second. It tries only once for alive, which
-- enqueues do not check.
--
-- The setting pgjobq.keys lists the keys that the session holds, because reading pg_locks instead would block all other
-- sessions for a moment.
create or replace function hold_keys(worker_id integer, keys text[])
  returns boolean
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_all  constant text[] := string_to_array(coalesce(current_setting('pgjobq.keys', true), ''), ' ');
  v_own  constant text   := format(':%s:%s', hold_keys.worker_id, lock_class('alive'));  -- other schemas have the same ids
  v_want constant text[] := array(select key || v_own from unnest(hold_keys.keys) as key);
  v_held constant text[] := array(select held from unnest(v_all) as held where held like '%' || v_own);
  v_kept constant text[] := array(select held from unnest(v_all) as held where held <> all (v_held));
  v_new  text[] := '{}';
  v_key  text;
begin
  foreach v_key in array v_want loop
    continue when v_key = any (v_held);
    for attempt in 1..20 loop
      exit when turn_key(v_key, true);
      if attempt = 20 or v_key = 'alive' || v_own then
        perform turn_key(taken, false) from unnest(v_new) as taken;
        return false;
      end if;
      perform pg_sleep(0.001 * attempt);
    end loop;
    v_new := v_new || v_key;
  end loop;
  perform turn_key(held, false) from unnest(v_held) as held where held <> all (v_want);
  perform set_config('pgjobq.keys', array_to_string(v_kept || v_want, ' '), false);
  return true;
end;
$$;
comment on function hold_keys(integer, text[]) is 'Private: make this session hold exactly these keys of a worker.';
