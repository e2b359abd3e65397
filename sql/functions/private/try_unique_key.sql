-- try_unique_key: call take_unique_key, unless another transaction has locked the key; return whether the job has it.
create or replace function try_unique_key(unique_key text, job_id text)
  returns boolean
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  perform from unique_keys where unique_keys.key = try_unique_key.unique_key collate "C" for update skip locked;
  if not found and exists (select from unique_keys where unique_keys.key = try_unique_key.unique_key collate "C") then
    return false;
  end if;
  return take_unique_key(try_unique_key.unique_key, try_unique_key.job_id) is null;
end;
$$;
comment on function try_unique_key(text, text) is
  'Private: call take_unique_key, unless another transaction has locked the key; return whether the job has it.';
