-- enqueue_job: add one job and return its id.
--
-- The job is part of the caller's transaction: it exists once that commits, and not before. A higher priority runs
-- first. execute_at null or in the past: the job is due at once. job_id null: the job gets a new UUID. If job_id exists
-- already, it raises unique_violation (constraint job_id_exists_already). expires_at: the job is cancelled if it has not
-- started by then; null: it never expires.
--
-- With a unique_key, the call may end in a job that exists already, and returns the id of that job. See add_job, which
-- also returns which of the two happened.
create or replace function enqueue_job(type text, data jsonb default '{}', priority bigint default 5,
                                       execute_at timestamptz default null, max_retries integer default 3,
                                       queue text default 'default', job_id text default null,
                                       unique_key text default null, unique_while text default null,
                                       unique_for interval default null, on_conflict text default null,
                                       debounce_ceiling interval default null, expires_at timestamptz default null)
  returns text
  language plpgsql
  volatile
  security definer  -- a role that may only enqueue needs no right on any table
  set search_path from current
as $$
declare
  v_id text := coalesce(enqueue_job.job_id, new_job_id());
begin
  if num_nulls(enqueue_job.type, enqueue_job.data, enqueue_job.queue, enqueue_job.priority, enqueue_job.max_retries) > 0
     or enqueue_job.priority not between -2147483648 and 2147483647 or enqueue_job.max_retries < 0
     or num_nonnulls(enqueue_job.unique_key, enqueue_job.unique_while, enqueue_job.unique_for, enqueue_job.on_conflict,
                     enqueue_job.debounce_ceiling, enqueue_job.expires_at) > 0 then
    perform check_new_job(enqueue_job.type, enqueue_job.data, enqueue_job.priority, enqueue_job.execute_at,
                          enqueue_job.max_retries, enqueue_job.queue, enqueue_job.unique_key, enqueue_job.unique_while,
                          enqueue_job.unique_for, enqueue_job.on_conflict, enqueue_job.debounce_ceiling,
                          enqueue_job.expires_at);
    if enqueue_job.unique_key is not null then
      v_id := (add_unique_job(enqueue_job.type, enqueue_job.data, enqueue_job.priority, enqueue_job.execute_at,
                              enqueue_job.max_retries, enqueue_job.queue, v_id, enqueue_job.unique_key,
                              enqueue_job.unique_while, enqueue_job.unique_for, enqueue_job.on_conflict,
                              enqueue_job.debounce_ceiling, enqueue_job.expires_at)).id;
      return v_id;
    end if;
  end if;
  insert into jobs (id, queue, type, data, priority, max_retries, execute_at, expires_at)
  values (v_id, enqueue_job.queue, enqueue_job.type, enqueue_job.data, enqueue_job.priority,
          enqueue_job.max_retries, enqueue_job.execute_at, enqueue_job.expires_at);
  return v_id;
end;
$$;
comment on function enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz) is
  'Add one job in the caller''s transaction; returns its id, or with a unique_key that is taken the id of its job.';
