-- hold_unique_key: lock_unique_key, with an error that says what to do when the snapshot is too old.
--
-- The block that catches it is a subtransaction, so read committed, where this cannot happen, goes without it.
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
        hint    = 'Roll back and run the whole transaction again, or enqueue in read committed.';
    end;
  end if;
  return v_held;
end;
$$;
comment on function hold_unique_key(text, text, boolean) is
  'Private: lock_unique_key, with an error that says what to do when the snapshot is too old.';
