-- replace_schedules: give a place to each schedule that has a next run, and whose place is gone.
--
-- No worker would find its next run. This happens when the table scheduled is changed manually.
create or replace function replace_schedules()
  returns void
  language sql
  volatile
  set search_path from current
as $$
  select place_schedule(lost.id)
    from (select schedules.id
            from schedules
           where schedules.next_run is not null
             and not exists (select from scheduled
                              where scheduled.execute_at = schedules.place_at and scheduled.seq = schedules.place)
             for update skip locked) as lost;
$$;
comment on function replace_schedules() is
  'Private: give a place to each schedule that has a next run, and whose place is gone.';
