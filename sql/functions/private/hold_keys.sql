-- hold_keys: make this session hold exactly these keys of a worker.
--
-- keys are names of lock_class, and also 'anyone' (asleep 0, shared) and 'everything' (polling 0). New keys are taken
-- before the others are released. Returns false, and changes nothing, if another session holds a new key. An enqueue
-- holds a key for a microsecond to check it, so this tries for a fifth of a second. It tries only once for alive, which
-- enqueues do not check.
--
-- The setting pgjobq.keys lists the keys that the session holds, because reading pg_locks instead would block all other
-- sessions for a moment. Each is listed with the worker's id and lock_class('alive'), such as asleep:17:16385, because
-- workers of other schemas have the same ids.
create or replace function hold_keys(worker_id integer, keys text[])
  returns boolean
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_all   constant text[] := string_to_array(coalesce(current_setting('pgjobq.keys', true), ''), ' ');
  v_own   constant text   := format(':%s:%s', hold_keys.worker_id, lock_class('alive'));
  v_held  constant text[] := array(select split_part(held, ':', 1) from unnest(v_all) as held where held like '%' || v_own);
  v_now   text[] := v_held;
  v_want  text[] := hold_keys.keys;
  v_taken boolean;
  v_key   text;
begin
  foreach v_key in array hold_keys.keys loop
    continue when v_key = any (v_held);
    for attempt in 1..20 loop
      v_taken := case v_key
        when 'anyone'     then pg_try_advisory_lock_shared(lock_class('asleep'), 0)
        when 'everything' then pg_try_advisory_lock(lock_class('polling'), 0)
        else                   pg_try_advisory_lock(lock_class(v_key), hold_keys.worker_id) end;
      exit when v_taken or v_key = 'alive' or attempt = 20;
      perform pg_sleep(0.001 * attempt);
    end loop;
    if not v_taken then
      v_want := v_held;  -- release those that were taken
      exit;
    end if;
    v_now := v_now || v_key;
  end loop;
  foreach v_key in array v_now loop
    continue when v_key = any (v_want);
    perform case v_key
      when 'anyone'     then pg_advisory_unlock_shared(lock_class('asleep'), 0)
      when 'everything' then pg_advisory_unlock(lock_class('polling'), 0)
      else                   pg_advisory_unlock(lock_class(v_key), hold_keys.worker_id) end;
  end loop;
  perform set_config('pgjobq.keys', array_to_string(array(
    select held from unnest(v_all) as held where held not like '%' || v_own
    union all
    select held || v_own from unnest(v_want) as held), ' '), false);
  return v_want = hold_keys.keys;
end;
$$;
comment on function hold_keys(integer, text[]) is 'Private: make this session hold exactly these keys of a worker.';
