-- turn_key: try to take a key for this session, or release it; return whether that succeeded.
--
-- key is the key's name, the worker's id and lock_class('alive'), such as asleep:17:16385.
create or replace function turn_key(key text, take boolean)
  returns boolean
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_name constant text    := split_part(turn_key.key, ':', 1);
  v_id   constant integer := split_part(turn_key.key, ':', 2);
begin
  return case
    when v_name = 'anyone'     and take then pg_try_advisory_lock_shared(lock_class('asleep'), 0)
    when v_name = 'anyone'              then pg_advisory_unlock_shared(lock_class('asleep'), 0)
    when v_name = 'everything' and take then pg_try_advisory_lock(lock_class('polling'), 0)
    when v_name = 'everything'          then pg_advisory_unlock(lock_class('polling'), 0)
    when take                           then pg_try_advisory_lock(lock_class(v_name), v_id)
    else                                     pg_advisory_unlock(lock_class(v_name), v_id)
  end;
end;
$$;
comment on function turn_key(text, boolean) is
  'Private: try to take a key for this session, or release it; returns whether that succeeded.';
