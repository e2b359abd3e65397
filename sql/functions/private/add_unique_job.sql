-- add_unique_job: add a job with a unique key, or fold the call into the job that has the key; see add_job.
--
-- The caller has called check_new_job.
create or replace function add_unique_job(type text, data jsonb, priority bigint, execute_at timestamptz, max_retries integer,
                                          queue text, job_id text, unique_key text, unique_while text, unique_for interval,
                                          on_conflict text, debounce_ceiling interval, expires_at timestamptz,
                                          out id text, out outcome text)
  language plpgsql
  volatile
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_execute_at constant job_execute_at := add_unique_job.execute_at;
  v_changes constant boolean := coalesce(add_unique_job.on_conflict in ('replace', 'debounce'), false);
  v_pending constant boolean := coalesce(add_unique_job.unique_while = 'pending', v_changes);
  v_held record;
  v_new  record;
begin
  id := coalesce(add_unique_job.job_id, new_job_id());
  perform reject_job(id, add_unique_job.type, add_unique_job.queue, 'pending', add_unique_job.data,
                     nullif(current_setting('pgjobq.max_data_bytes', true), '')::bigint);
  v_held := hold_unique_key(add_unique_job.unique_key, id, v_pending or v_changes);
  if coalesce(v_held.locked and v_held.status = 'pending'
              or not v_pending and v_held.status in ('pending', 'running')
              or v_held.status <> 'cancelled' and v_held.created_at > clock_timestamp() - add_unique_job.unique_for, false)
  then
    if add_unique_job.on_conflict = 'error' then
      raise exception using errcode = 'JQ008',
        message = format('unique_key: job %s, which is %s, has the key %L', v_held.id, v_held.status, add_unique_job.unique_key),
        hint    = 'Enqueue again when that job has ended, or use another on_conflict.';
    end if;
    id := v_held.id;
    outcome := 'kept';
    if v_changes and v_held.locked and v_held.status = 'pending' then
      outcome := 'replaced';
      update jobs
         set type = add_unique_job.type, data = add_unique_job.data, queue = add_unique_job.queue,
             priority = add_unique_job.priority, max_retries = add_unique_job.max_retries,
             expires_at = add_unique_job.expires_at, updated_at = clock_timestamp(),
             -- A debounce does not shorten the wait for the next try.
             execute_at = case when add_unique_job.on_conflict = 'replace' then v_execute_at
                               else greatest(least(v_execute_at, jobs.created_at + add_unique_job.debounce_ceiling),
                                             case when jobs.attempts > 0 then jobs.execute_at end) end
       where jobs.id = v_held.id collate "C"
      returning jobs.queue, jobs.type, jobs.priority, jobs.execute_at into v_new;
      if (v_new.queue, v_new.priority, v_new.execute_at) is distinct from (v_held.queue, v_held.priority, v_held.execute_at) then
        -- The trigger has given the job a new place. Delete the old one, or every call would leave one behind.
        delete from scheduled
         where scheduled.ctid = any (array(select place.ctid from scheduled as place
                                            where place.execute_at = v_held.execute_at and place.job_id = v_held.id collate "C"
                                              and (place.queue, place.lane, place.execute_at)
                                                  is distinct from (v_new.queue, - v_new.priority::bigint, v_new.execute_at)
                                              for update skip locked));
        return;
      end if;
      v_held.type := v_new.type;
    end if;
    -- Claims pass over the locked job and look again later. This wakes a worker as soon as the lock is released.
    if v_held.locked and v_held.status = 'pending' and not is_held('polling', 0) then
      perform notify_workers(array[v_held.queue], v_held.execute_at, types => array[v_held.type]);
    end if;
    return;
  end if;
  if not v_held.is_new then
    update unique_keys set job_id = add_unique_job.id where unique_keys.key = add_unique_job.unique_key collate "C";
  end if;
  insert into jobs (id, queue, type, data, priority, max_retries, execute_at, unique_key, expires_at)
  values (id, add_unique_job.queue, add_unique_job.type, add_unique_job.data, add_unique_job.priority,
          add_unique_job.max_retries, v_execute_at, add_unique_job.unique_key, add_unique_job.expires_at);
  outcome := 'added';
end;
$$;
comment on function add_unique_job(text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz) is
  'Private: add a job with a unique key, or fold the call into the job that has the key.';
