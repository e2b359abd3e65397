-- release_jobs: give back claimed jobs that were not started.
--
-- running -> pending, due at once or after a delay, and the start that the claim counted
-- is taken back.  ids and attempts are parallel.  Returns the ids that this worker does not hold any
-- more; those are unchanged.
create or replace function release_jobs(worker_id integer, ids text[], attempts integer[],
                                        delay_seconds double precision default 0)
  returns setof text
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
declare
  v_attempt  integer;
  v_released text[] := '{}';
  v_some     text[];
begin
  for v_attempt in select distinct unnest(release_jobs.attempts) loop
    with released as (
      update jobs
         set status     = 'pending',
             attempts   = jobs.attempts - 1,
             execute_at = case when release_jobs.delay_seconds > 0
                               then statement_timestamp() + make_interval(secs => release_jobs.delay_seconds)
                               else jobs.execute_at
                          end,
             updated_at = statement_timestamp()
       where jobs.id = any (array(
               select start.id
                 from unnest(release_jobs.ids, release_jobs.attempts) as start (id, attempts)
                where start.attempts = v_attempt))
         and jobs.status = 'running'
         and jobs.attempts = v_attempt
         and jobs.worker_id = release_jobs.worker_id
      returning jobs.id
    )
    select array_agg(released.id) from released into v_some;
    v_released := v_released || coalesce(v_some, '{}');
  end loop;
  -- One that was released before is not lost: the answer to a first call may have been.
  return query
  select start.id
    from unnest(release_jobs.ids, release_jobs.attempts) as start (id, attempts)
   where start.id <> all (v_released)
     and not was_settled(release_jobs.worker_id, start.id, start.attempts - 1, 'pending');
end;
$$;
comment on function release_jobs(integer, text[], integer[], double precision) is
  'Give back claimed jobs that were not started; returns the ids that the worker has lost.';
