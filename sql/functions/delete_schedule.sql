-- delete_schedule: delete a schedule. Returns false if there is none with this id. Its jobs stay.
create or replace function delete_schedule(id text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v schedules;
begin
  delete from schedules where schedules.id = delete_schedule.id collate "C" returning * into v;
  if not found then
    return false;
  end if;
  perform place_schedule(v.id, v.place, v.place_at);
  return true;
end;
$$;
comment on function delete_schedule(text) is 'Delete a schedule; returns false if there is none with this id.';
