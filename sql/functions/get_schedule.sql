-- get_schedule: return the schedule with this id, or no row if there is none.
create or replace function get_schedule(id text)
  returns setof schedules
  language sql
  stable
  security definer
  set search_path from current
as $$
  select schedules.* from schedules where schedules.id = get_schedule.id collate "C";
$$;
comment on function get_schedule(text) is 'Return the schedule with this id, or no row if there is none.';
