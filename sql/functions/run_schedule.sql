-- run_schedule: add a job of a schedule now, and return its id. The next run stays as it is.
--
-- It does so even if the schedule is not enabled, or its last job is unfinished. The job's id has the present moment
-- with microseconds, so it is never that of a tick. Raises JQ010 if there is no schedule with this id.
create or replace function run_schedule(id text)
  returns text
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v     constant schedules := held_schedule(run_schedule.id);
  v_at  timestamptz;
  v_id  text;
begin
  loop
    v_at := clock_timestamp();
    continue when v_at = date_trunc('second', v_at);
    insert into jobs (id, queue, type, data, priority, max_retries, execute_at)
    values (tick_id(v.id, v_at), v.queue, v.type, v.data, v.priority, v.max_retries, v_at)
    on conflict on constraint job_id_exists_already do nothing
    returning jobs.id into v_id;
    exit when found;
  end loop;
  -- As long as the job is unfinished, an overlap is one with it, unless another job is unfinished already.
  update schedules
     set last_job = v_id
   where schedules.id = v.id
     and not exists (select from jobs where jobs.id = v.last_job and jobs.status in ('pending', 'running'));
  return v_id;
end;
$$;
comment on function run_schedule(text) is 'Add a job of a schedule now, and return its id; the next run stays as it is.';
