-- hold_unique_key: call lock_unique_key, and say what to do if it fails because the snapshot is too old.
--
-- An exception block is a subtransaction. In read committed the error cannot occur, and the call goes without one.
create or replace function hold_unique_key(unique_key text, new_id text, lock_pending boolean)
  returns record
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_held record;
begin
  if current_setting('transaction_isolation') not in ('repeatable read', 'serializable') then
    v_held := lock_unique_key(hold_unique_key.unique_key, hold_unique_key.new_id, hold_unique_key.lock_pending);
  else
    begin
      v_held := lock_unique_key(hold_unique_key.unique_key, hold_unique_key.new_id, hold_unique_key.lock_pending);
    exception when serialization_failure then
      raise exception using errcode = 'serialization_failure',
        message = format('unique_key: the key %L, or its job, has changed since the snapshot of this transaction was taken',
                         hold_unique_key.unique_key),
        hint    = 'Roll back and run the whole transaction again, or use read committed.';
    end;
  end if;
  return v_held;
end;
$$;
comment on function hold_unique_key(text, text, boolean) is
  'Private: call lock_unique_key, and say what to do if it fails because the snapshot is too old.';
