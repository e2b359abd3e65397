-- held_schedule: lock the schedule with this id and return it; raise JQ010 if there is none.
create or replace function held_schedule(id text)
  returns schedules
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v schedules;
begin
  select * from schedules where schedules.id = held_schedule.id collate "C" for update into v;
  if not found then
    raise exception using errcode = 'JQ010', hint = 'list_schedules returns those that there are.',
      message = format('id: there is no schedule %L', left(held_schedule.id, 200));
  end if;
  return v;
end;
$$;
comment on function held_schedule(text) is 'Private: lock the schedule with this id and return it.';
