-- lock_unique_key: lock a unique key until the end of the transaction, and find the job that it names.
--
-- It waits for another transaction that has locked the key. If there is no such key, it adds one that names new_id, and
-- returns is_new true and no job. It also returns no job (id null) if the job that the key named does not exist any more,
-- or has another key now. A pending job that has expired counts as cancelled, because no claim starts it.
--
-- lock_pending: if the job is pending, lock it too, so that no claim starts it before this transaction ends. locked says
-- whether the job was locked. In repeatable read and serializable the job is locked in any status, because only a lock
-- raises 40001 when the job has changed since the snapshot.
create or replace function lock_unique_key(unique_key text, new_id text, lock_pending boolean, out is_new boolean,
                                           out locked boolean, out id text, out status text, out queue text,
                                           out type text, out priority integer, out execute_at timestamptz,
                                           out created_at timestamptz)
  language plpgsql
  volatile
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_snapshot constant boolean := current_setting('transaction_isolation') in ('repeatable read', 'serializable');
  v_holder   text collate "C";
begin
  is_new := false;
  locked := false;
  loop
    insert into unique_keys (key, job_id) values (lock_unique_key.unique_key, lock_unique_key.new_id)
    on conflict (key) do nothing;
    if found then
      is_new := true;
      return;
    end if;
    select unique_keys.job_id
      from unique_keys
     where unique_keys.key = lock_unique_key.unique_key collate "C"
       for update
      into v_holder;
    exit when found;  -- otherwise sweep_unique_keys has just deleted it
  end loop;
  if lock_unique_key.lock_pending or v_snapshot then
    select jobs.id,
           case when jobs.status = 'pending' and jobs.expires_at <= clock_timestamp() then 'cancelled' else jobs.status end,
           jobs.queue, jobs.type, jobs.priority, jobs.execute_at, jobs.created_at
      from jobs
     where jobs.id = v_holder
       and jobs.unique_key = lock_unique_key.unique_key collate "C"
       and (jobs.status = 'pending' or v_snapshot)
       for no key update
      into id, status, queue, type, priority, execute_at, created_at;
    locked := found;
  end if;
  if not locked and not v_snapshot then
    select jobs.id,
           case when jobs.status = 'pending' and jobs.expires_at <= clock_timestamp() then 'cancelled' else jobs.status end,
           jobs.queue, jobs.type, jobs.priority, jobs.execute_at, jobs.created_at
      from jobs
     where jobs.id = v_holder
       and jobs.unique_key = lock_unique_key.unique_key collate "C"
      into id, status, queue, type, priority, execute_at, created_at;
  end if;
end;
$$;
comment on function lock_unique_key(text, text, boolean) is
  'Private: lock a unique key to the end of the transaction, and find the job that it names.';
