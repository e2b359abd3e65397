-- import_jobs: add jobs with their state and return how many were added.
--
-- jobs is an array of objects whose keys are columns of the table jobs, such as export_jobs returns. It adds all of
-- them or none; null adds none. A job whose id exists already is skipped. attempts, crashes, error and times are stored
-- as given; worker_id and claim_id are ignored. A missing key means the default, except that a finished job without
-- finished_at or failed_at gets its updated_at there. A running job is refused, because no worker here runs it.
-- A job keeps its unique key, even if another unfinished job here has the same one. A completed job that is given with
-- its id also keeps its `result`, see job_result.
create or replace function import_jobs(jobs jsonb)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_added integer; v_keys text[]; v_ids text[];
begin
  if jsonb_typeof(import_jobs.jobs) <> 'array' then
    raise exception using errcode = 'JQ001',
      message = 'jobs: is not a JSON array',
      hint    = 'Pass an array of objects, such as jsonb_agg(to_jsonb(job)).';
  end if;
  with added as (
    insert into jobs as kept (id, queue, type, data, status, priority, attempts, max_retries, execute_at, error,
                              created_at, updated_at, started_at, finished_at, failed_at, crashes, unique_key, expires_at)
    select coalesce(given.id, new_job_id()), coalesce(given.queue, 'default'), given.type, coalesce(given.data, '{}'),
           coalesce(given.status, 'pending'), coalesce(given.priority, 5), coalesce(given.attempts, 0),
           coalesce(given.max_retries, 3), given.execute_at, given.error,
           coalesce(given.created_at, given.updated_at, now()), coalesce(given.updated_at, given.created_at, now()),
           given.started_at,
           case when given.status in ('completed', 'failed', 'cancelled')
                then coalesce(given.finished_at, given.failed_at, given.updated_at, given.created_at, now()) end,
           case when given.status = 'failed'
                then coalesce(given.failed_at, given.finished_at, given.updated_at, given.created_at, now()) end,
           coalesce(given.crashes, 0), given.unique_key, given.expires_at
      from jsonb_populate_recordset(null::jobs, import_jobs.jobs) as given
    on conflict (id) do nothing
    returning kept.id, kept.unique_key, kept.created_at
  )
  select count(*), array_agg(added.unique_key order by added.unique_key, added.created_at),
         array_agg(added.id order by added.unique_key, added.created_at)
    from added
    into v_added, v_keys, v_ids;
  delete from results where results.job_id = any (v_ids);
  insert into results (job_id, result)
  select given.job ->> 'id', given.job -> 'result'
    from jsonb_array_elements(import_jobs.jobs) as given (job)
   where given.job ->> 'status' = 'completed'
     and jsonb_typeof(given.job -> 'result') <> 'null'
     and given.job ->> 'id' = any (v_ids);
  perform check_new_job('', '{}', 0, null, 0, '', given.key, null, null, null, null, null),
          take_unique_key(given.key, given.id)
     from unnest(v_keys, v_ids) as given (key, id)
    where given.key is not null;
  return v_added;
end;
$$;
comment on function import_jobs(jsonb) is
  'Add jobs with their state, from an array of objects whose keys are columns of jobs; returns how many were added.';
