-- add_job: add one job, as enqueue_job does; return the id of the job in which the call ended, and the outcome.
--
-- outcome is added: a new job; kept: a job that has the key already, unchanged; or replaced: that job, changed. Without a
-- unique_key it is always added. A key counts in the whole schema, across queues and types. The call waits for another
-- transaction that is enqueueing the same key.
--
--   unique_while      which jobs have their key: those that are unfinished, or only the pending ones. With pending, the job
--                     into which a call is folded starts after the call's commit: a running job does not count, because
--                     it may have read too early what the call is about, and a pending job is locked until this
--                     transaction ends, so that no claim takes it.
--   unique_for        a job that was enqueued less than this ago has its key even after it has ended, unless it was
--                     cancelled or deleted
--   on_conflict       keep: leave the job that has the key as it is. error: raise JQ008. replace: if that job is pending,
--                     give it this call's type, data, queue, priority, max_retries, execute_at and expires_at. debounce:
--                     like replace, but execute_at is no later than debounce_ceiling after the job was first enqueued.
--   debounce_ceiling  null: there is no limit
--
-- The default of on_conflict is keep. The default of unique_while is unfinished, but with replace and debounce it is
-- pending, because a running job cannot be changed.
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
  'Add one job; returns the id of the job in which the call ended, and the outcome: added, kept or replaced.';
