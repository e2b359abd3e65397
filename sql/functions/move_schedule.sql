-- move_schedule: set the next run of a schedule. Returns false if there is none with this id.
--
-- The runs after it are those of its expression. A next run that has passed gets its job at the next claim; null
-- means the next tick from now. A schedule that is not enabled is left as it is. last_run: null keeps it.
create or replace function move_schedule(id text, next_run timestamptz, last_run timestamptz default null)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v schedules;
begin
  if not coalesce(move_schedule.next_run between '0001-01-02Z' and '9998-12-31Z', true) then
    raise exception using errcode = 'JQ009', hint = 'Leave it out to use the next tick.',
      message = 'next_run: not a time in the years 1 to 9998';
  end if;
  select * from schedules where schedules.id = move_schedule.id collate "C" for update into v;
  if not found then
    return false;
  elsif v.enabled then
    update schedules
       set next_run   = coalesce(move_schedule.next_run, schedule_next(v, clock_timestamp())),
           last_run   = coalesce(move_schedule.last_run, schedules.last_run),
           updated_at = clock_timestamp()
     where schedules.id = v.id;
    perform place_schedule(v.id);
  end if;
  return true;
end;
$$;
comment on function move_schedule(text, timestamptz, timestamptz) is
  'Set the next run of a schedule; returns false if there is none with this id.';
