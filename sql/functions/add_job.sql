-- add_job: add one job, as enqueue_job does; returns the id of the job that the call ended in, and how.
--
-- outcome: added, a new job; kept, a job that has the key already, unchanged; replaced, that job, changed.  Without a
-- unique_key always added.  A key counts in the whole schema, whatever the queue and type.  A call waits for another
-- transaction that enqueues the same key.
--
-- unique_while: which job has the key: one that is unfinished, or only a pending one.  With pending, the job that a call
-- is folded into starts after the call's commit: a job that runs may have read what the call is about too early, so it
-- does not count, and one that is pending is not claimed until this transaction ends.  unique_for: a job that was
-- enqueued no longer ago than this has the key even when it has ended, unless it was cancelled or deleted.
--
-- on_conflict: keep: leave that job as it is.  error: raise JQ008.  replace: if it is pending, give it the type, data,
-- queue, priority, max_retries, execute_at and expires_at of this call; attempts and created_at stay.  debounce: the same,
-- and execute_at is this call's, but no later than debounce_ceiling after the job was first enqueued.
--
-- Null: unique_while is pending with replace and debounce, which cannot change a job that runs, and unfinished with the
-- others; on_conflict is keep.
create or replace function add_job(type text, data jsonb default '{}', priority bigint default 5,
                                   execute_at timestamptz default null, max_retries integer default 3,
                                   queue text default 'default', job_id text default null, unique_key text default null,
                                   unique_while text default null, unique_for interval default null,
                                   on_conflict text default null, debounce_ceiling interval default null,
                                   expires_at timestamptz default null, out id text, out outcome text)
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_added record;
begin
  perform check_new_job(add_job.type, add_job.data, add_job.priority, add_job.execute_at, add_job.max_retries, add_job.queue,
                        add_job.unique_key, add_job.unique_while, add_job.unique_for, add_job.on_conflict,
                        add_job.debounce_ceiling, add_job.expires_at);
  if add_job.unique_key is null then
    id := enqueue_job(add_job.type, add_job.data, add_job.priority, add_job.execute_at, add_job.max_retries, add_job.queue,
                      add_job.job_id, expires_at => add_job.expires_at);
    outcome := 'added';
  else
    v_added := add_unique_job(add_job.type, add_job.data, add_job.priority, add_job.execute_at, add_job.max_retries,
                              add_job.queue, add_job.job_id, add_job.unique_key, add_job.unique_while, add_job.unique_for,
                              add_job.on_conflict, add_job.debounce_ceiling, add_job.expires_at);
    id := v_added.id;
    outcome := v_added.outcome;
  end if;
end;
$$;
comment on function add_job(text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz) is
  'Add one job; returns the id of the job that the call ended in, and outcome: added, kept or replaced.';
