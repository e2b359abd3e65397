-- fire_one_by_one: do what fire_schedules could not do at once, and take a schedule that fails out of the line.
--
-- Returns how many places it dealt with. error is the reason of the failure; last_error keeps it.
create or replace function fire_one_by_one(places tid[], now timestamptz, error text)
  returns integer
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_fired integer := 0;
  v_place tid;
begin
  if cardinality(fire_one_by_one.places) > 1 then
    foreach v_place in array fire_one_by_one.places loop
      v_fired := v_fired + fire_schedules(array[v_place], fire_one_by_one.now);
    end loop;
    return v_fired;
  end if;
  with broken as materialized (
    select schedules.ctid as tid
      from schedules
     where (schedules.id, schedules.place) = (select scheduled.schedule_id, scheduled.seq from scheduled
                                               where scheduled.ctid = any (fire_one_by_one.places))
       for update skip locked
  ), gone as (
    delete from scheduled
     where scheduled.ctid = any (fire_one_by_one.places) and exists (select from broken)
  )
  update schedules
     set next_run = null, place = null, place_at = null, last_error = fire_one_by_one.error
   where schedules.ctid = any (array(select broken.tid from broken));
  get diagnostics v_fired = row_count;
  return v_fired;
end;
$$;
comment on function fire_one_by_one(tid[], timestamptz, text) is
  'Private: do what fire_schedules could not do at once, and take a schedule that fails out of the line.';
