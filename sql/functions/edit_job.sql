-- edit_job: change a pending job. An argument that is null leaves its field as it is.
--
-- Returns false if there is no such job. Raises JQ012, and changes nothing, if the job runs or has finished. Raises 55P03
-- (lock_not_available) if another transaction holds the row for half a second.
--
--   data        the new data, all of it
--   execute_at  To let the job start at once, use retry_job.
--   reason      why, for the view actions
create or replace function edit_job(id text, data jsonb default null, queue text default null,
                                    priority integer default null, execute_at timestamptz default null,
                                    max_retries integer default null, reason text default null)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
  set lock_timeout = '500ms'
as $$
declare
  v_job jobs;
begin
  select * from jobs where jobs.id = edit_job.id collate "C" for no key update into v_job;
  if not found then
    return false;
  elsif v_job.status <> 'pending' then
    raise exception using errcode = 'JQ012',
      message = format('job %s is %s; only a pending job can be edited', v_job.id, v_job.status),
      hint    = case v_job.status when 'running' then 'Wait until it ends, or cancel it.'
                                  when 'completed' then 'Enqueue a new job.'
                                  else 'Retry it with a delay and then edit it, or use the data_patch of retry_jobs.' end;
  end if;
  perform reject_job(v_job.id, v_job.type, edit_job.queue, 'pending', edit_job.data,
                     nullif(current_setting('pgjobq.max_data_bytes', true), '')::bigint);
  update jobs
     set data        = coalesce(edit_job.data, jobs.data),
         queue       = coalesce(edit_job.queue, jobs.queue),
         priority    = coalesce(edit_job.priority, jobs.priority),
         execute_at  = coalesce(edit_job.execute_at, jobs.execute_at),
         max_retries = coalesce(edit_job.max_retries, jobs.max_retries),
         updated_at  = clock_timestamp()
   where jobs.id = v_job.id;
  perform note_action('edit', 'job ' || v_job.id, edit_job.reason);
  return true;
end;
$$;
comment on function edit_job(text, jsonb, text, integer, timestamptz, integer, text) is
  'Change a pending job; returns false if there is no such job.';
