-- enqueue_job: add one job and return its id.
--
-- The job is part of the caller's transaction: it exists once that commits, and not before. A higher priority runs
-- first. execute_at null or in the past: the job is due at once. job_id null: the job gets a new UUID. If job_id exists
-- already, it raises unique_violation (constraint job_id_exists_already).
create or replace function enqueue_job(type text, data jsonb default '{}', priority bigint default 5,
                                       execute_at timestamptz default null, max_retries integer default 3,
                                       queue text default 'default', job_id text default null)
  returns text
  language plpgsql
  volatile
  security definer  -- a role that may only enqueue needs no right on any table
  set search_path from current
as $$
declare
  v_id text := coalesce(enqueue_job.job_id, new_job_id());
begin
  if enqueue_job.type is null or enqueue_job.data is null or enqueue_job.queue is null
     or enqueue_job.priority is null or enqueue_job.max_retries is null then
    raise exception using errcode = 'JQ001',
      message = 'type, data, queue, priority, max_retries: none of these may be null',
      hint    = 'Leave an argument out to use its default; type has none.';
  elsif enqueue_job.priority not between -2147483648 and 2147483647 then
    raise exception using errcode = 'JQ001',
      message = format('priority: %s is out of range', enqueue_job.priority),
      hint    = 'Use an integer from -2147483648 to 2147483647; higher runs first.';
  elsif enqueue_job.max_retries < 0 then
    raise exception using errcode = 'JQ001',
      message = format('max_retries: %s is negative', enqueue_job.max_retries),
      hint    = 'Use 0 or more; 0 allows a single try.';
  end if;
  insert into jobs (id, queue, type, data, priority, max_retries, execute_at)
  values (v_id, enqueue_job.queue, enqueue_job.type, enqueue_job.data, enqueue_job.priority,
          enqueue_job.max_retries, enqueue_job.execute_at);
  return v_id;
end;
$$;
comment on function enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text) is
  'Add one job in the caller''s transaction; returns its id.';
