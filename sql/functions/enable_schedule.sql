-- enable_schedule: pause a schedule, or let it go on. Returns false if there is none with this id.
--
-- While it is not enabled, it has no next run. When it is enabled again, its next run is the next tick from now, and the
-- ticks in between get no job. A schedule that stopped because of an error goes on too. If nothing changes, the next run
-- is kept.
create or replace function enable_schedule(id text, enabled boolean default true)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v schedules;
begin
  select * from schedules where schedules.id = enable_schedule.id collate "C" for update into v;
  if not found then
    return false;
  elsif (v.enabled, v.next_run is not null)
        is distinct from (coalesce(enable_schedule.enabled, true), coalesce(enable_schedule.enabled, true)) then
    update schedules
       set enabled    = coalesce(enable_schedule.enabled, true),
           next_run   = case when coalesce(enable_schedule.enabled, true) then schedule_next(v, clock_timestamp()) end,
           last_error = null,
           updated_at = clock_timestamp()
     where schedules.id = v.id;
    perform place_schedule(v.id);
  end if;
  return true;
end;
$$;
comment on function enable_schedule(text, boolean) is
  'Pause a schedule, or let it go on; returns false if there is none with this id.';
