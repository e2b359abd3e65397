-- retry_jobs: make failed jobs pending again: those that match all that is given, the oldest first.
--
-- At least one of queue, type, fingerprint (see the view failures), failed_since and failed_until is needed. A job gets one
-- try even if all are used up, as by retry_job. A job that was retried matches no longer, so it is safe to repeat a call.
-- It waits for nothing: it skips jobs that another transaction holds, and jobs whose unique key is taken.
--
--   max_jobs    the largest number of jobs; null: all, in one transaction
--   spread      the jobs are due evenly over this time, which begins at starting_at (null: now)
--   data_patch  an object whose keys replace those of each job's data
--   dry_run     only count the jobs that match
--   reason      why, for the view actions, where all batches of one call by a program are one row
--   retried     how many jobs were retried
--   reached_*   where the batch ended, and null if no more are left. To retry the next batch, call the function in a new
--               transaction and pass these as after_created_at and after_id, and the same starting_at.
create or replace function retry_jobs(queue text default null, type text default null, fingerprint text default null,
                                      failed_since timestamptz default null, failed_until timestamptz default null,
                                      max_jobs integer default null, spread interval default '0',
                                      data_patch jsonb default null, dry_run boolean default false,
                                      reason text default null, starting_at timestamptz default null,
                                      after_created_at timestamptz default null, after_id text default null,
                                      out retried bigint, out reached_created_at timestamptz, out reached_id text)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_hashjoin = off  -- the jobs are found through the primary key
  set enable_mergejoin = off
as $$ #variable_conflict use_column
declare
  v_start constant timestamptz := coalesce(retry_jobs.starting_at, clock_timestamp());
  v_phase constant double precision := random();  -- so that batches do not add up to steps
  v_bytes constant bigint := nullif(current_setting('pgjobq.max_data_bytes', true), '')::bigint;
  v_found bigint;
begin
  perform check_redrive(array[retry_jobs.queue, retry_jobs.type, retry_jobs.fingerprint, retry_jobs.failed_since::text,
                              retry_jobs.failed_until::text], retry_jobs.max_jobs, retry_jobs.spread, retry_jobs.data_patch);
  with found as materialized (
    select found.created_at, found.id
      from failed_jobs(retry_jobs.queue, retry_jobs.type, retry_jobs.fingerprint, retry_jobs.failed_since, retry_jobs.failed_until,
                       retry_jobs.max_jobs, retry_jobs.after_created_at, retry_jobs.after_id) as found
  ), held as materialized (
    select found.created_at, job.*, row_number() over (partition by job.unique_key order by found.created_at desc) as rank
      from found
     cross join lateral (
       select jobs.id, jobs.unique_key from jobs
        where not retry_jobs.dry_run and jobs.id = found.id and jobs.status = 'failed'
          for no key update skip locked) as job
  ), due as materialized (
    select held.id, (row_number() over (order by held.created_at, held.id) - v_phase) / count(*) over () as part
      from held
     where case when held.unique_key is null then true when held.rank > 1 then false else try_unique_key(held.unique_key, held.id) end
  ), done as (
    update jobs
       set status = 'pending', attempts = greatest(jobs.attempts - jobs.crashes, 0), crashes = 0, fingerprint = null,
           data = case when retry_jobs.data_patch is null then jobs.data else jobs.data || retry_jobs.data_patch end,
           execute_at = v_start + retry_jobs.spread * due.part,
           expires_at = null, failed_at = null, finished_at = null, updated_at = clock_timestamp()
      from due
     where jobs.id = due.id
       and (retry_jobs.data_patch is null
            or not reject_job(jobs.id, jobs.type, jobs.queue, 'pending', jobs.data || retry_jobs.data_patch, v_bytes))
    returning jobs.id
  )
  select (select count(*) from found), case when retry_jobs.dry_run then (select count(*) from found) else (select count(*) from done) end,
         last.created_at, last.id
    from (select) as one left join (select * from found order by created_at desc, id desc limit 1) as last on true
    into v_found, retried, reached_created_at, reached_id;
  if retry_jobs.max_jobs is null or v_found < retry_jobs.max_jobs then reached_created_at := null; reached_id := null; end if;
  if retried > 0 and not retry_jobs.dry_run then
    perform note_action('retry', filter_text(retry_jobs.queue, retry_jobs.type, null, retry_jobs.fingerprint, retry_jobs.failed_since,
                        retry_jobs.failed_until, null), retry_jobs.reason, retried, retry_jobs.after_id is not null);
  end if;
end;
$$;
comment on function retry_jobs(text, text, text, timestamptz, timestamptz, integer, interval, jsonb, boolean, text, timestamptz, timestamptz, text) is
  'Make the failed jobs that match pending again, due evenly over a time; returns how many, and where the next batch begins.';
