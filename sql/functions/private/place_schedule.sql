-- place_schedule: give a schedule the place in scheduled that its next run asks for, and notify a worker of it.
--
-- The caller has locked the schedule, or has just deleted it and passes its place. A place that another transaction
-- holds is left, and is an orphan then.
create or replace function place_schedule(id text, old_place bigint default null, old_place_at timestamptz default null)
  returns void
  language plpgsql
  volatile
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off
as $$
declare
  v schedules;
begin
  -- A worker that falls asleep waits for the transactions that hold this lock, as for those that enqueue.
  lock table jobs in row exclusive mode;
  select * from schedules where schedules.id = place_schedule.id collate "C" into v;
  delete from scheduled
   where scheduled.ctid = any (array(
           select place.ctid
             from scheduled as place
            where (place.execute_at, place.seq) = (coalesce(v.place_at, place_schedule.old_place_at),
                                                   coalesce(v.place, place_schedule.old_place))
              for update skip locked));
  if v.id is null then
    return;
  end if;
  v.place    := case when v.next_run is not null then nextval('place_seq') end;
  v.place_at := v.next_run + v.jitter * random();
  update schedules set place = v.place, place_at = v.place_at where schedules.id = v.id;
  if v.next_run is not null then
    insert into scheduled (execute_at, seq, queue, lane, schedule_id)
    values (v.place_at, v.place, v.queue, - v.priority::bigint, v.id);
    if not is_held('polling', 0) then
      perform notify_workers(array[v.queue], v.place_at, types => array[v.type]);
    end if;
  end if;
end;
$$;
comment on function place_schedule(text, bigint, timestamptz) is
  'Private: give a schedule the place in scheduled that its next run asks for, and notify a worker of it.';
