-- take_unique_key: give a unique key to an existing job, unless another unfinished job has it.
--
-- Returns the id of that other job, and changes nothing then; null if the job has the key now. It waits for another
-- transaction that has locked the key.
create or replace function take_unique_key(unique_key text, job_id text)
  returns text
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_held record;
begin
  v_held := hold_unique_key(take_unique_key.unique_key, take_unique_key.job_id, false);
  if v_held.id <> take_unique_key.job_id collate "C" and v_held.status in ('pending', 'running') then
    return v_held.id;
  end if;
  update unique_keys
     set job_id = take_unique_key.job_id
   where unique_keys.key = take_unique_key.unique_key collate "C"
     and unique_keys.job_id <> take_unique_key.job_id collate "C";
  return null;
end;
$$;
comment on function take_unique_key(text, text) is
  'Private: give a unique key to an existing job, unless another unfinished job has it.';
