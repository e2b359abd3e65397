-- due_ticks: return the ticks for which a schedule that is due adds a job now, and its next run.
--
-- Usually only next_run is due. If no worker has claimed for a while, more ticks may have passed, and `missed` decides:
-- once is the last of them alone, skip the same if it is at most a minute late, all the last catch_up of them. If the
-- schedule does not allow an overlap, and its last job is not finished, there is none. error says why the schedule
-- cannot be evaluated; next_run is then null. With a jitter, a tick has passed when its jitter has.
create or replace function due_ticks(schedule schedules, now timestamptz, out ticks timestamptz[], out next_run timestamptz,
                                     out error text)
  language plpgsql
  stable
  set search_path from current
as $$
declare
  v_until constant timestamptz := greatest((due_ticks.schedule).next_run, due_ticks.now - (due_ticks.schedule).jitter);
begin
  ticks := array[(due_ticks.schedule).next_run];
  next_run := schedule_next(due_ticks.schedule, ticks[1]);
  if next_run <= v_until then
    ticks := schedule_ticks(due_ticks.schedule, ticks[1], v_until,
                            case (due_ticks.schedule).missed when 'all' then (due_ticks.schedule).catch_up else 1 end);
    next_run := schedule_next(due_ticks.schedule, v_until);
  end if;
  if (due_ticks.schedule).missed = 'skip' and ticks[1] < v_until - interval '1 minute'
     or (due_ticks.schedule).overlap = 'skip'
        and exists (select from jobs
                     where jobs.id = (due_ticks.schedule).last_job and jobs.status in ('pending', 'running')) then
    ticks := '{}';
  end if;
exception when others then
  ticks := '{}';
  next_run := null;
  error := sqlerrm;
end;
$$;
comment on function due_ticks(schedules, timestamptz) is
  'Private: return the ticks for which a schedule that is due adds a job now, and its next run.';
