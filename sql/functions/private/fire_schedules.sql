-- fire_schedules: add the jobs of the schedules that have these places in scheduled, and give them their next places.
--
-- The caller has locked the places. Returns how many it dealt with. It skips schedules that another transaction holds,
-- and leaves their places. It deletes a place that is not its schedule's own, and one of a schedule that was deleted or
-- paused. A job that exists already is left as it is. A schedule whose job cannot be added does not stop the others: it
-- loses its place, and last_error says why. now is a moment at which the places are due.
create or replace function fire_schedules(places tid[], now timestamptz)
  returns integer
  language plpgsql
  volatile
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_nestloop = off
  set enable_mergejoin = off
  set lock_timeout = '100ms'  -- for a job of the same id that another transaction is adding
as $$
declare
  v_orphans integer; v_fired integer;
  v_queues  text[];
  v_at      timestamptz[];
begin
  delete from scheduled
   where scheduled.ctid = any (array(
           select place.ctid
             from scheduled as place
            where place.ctid = any (fire_schedules.places)
              and (select schedules.place from schedules where schedules.id = place.schedule_id) is distinct from place.seq));
  get diagnostics v_orphans = row_count;
  with fired as materialized (
    select given.tid, (schedule.held).*, fire.ticks, fire.next_run as next_tick, fire.error,
           case when fire.next_run is not null then nextval('place_seq') end as next_place,
           fire.next_run + (schedule.held).jitter * random() as next_place_at
      from unnest(fire_schedules.places) as given (tid)
     cross join lateral (
       select scheduled.schedule_id, scheduled.seq from scheduled where scheduled.ctid = given.tid offset 0) as place
     cross join lateral (
       select schedules as held from schedules
        where schedules.id = place.schedule_id and schedules.place = place.seq
          for update skip locked) as schedule
     cross join lateral due_ticks(schedule.held, fire_schedules.now) as fire
  ), gone as (
    delete from scheduled where scheduled.ctid = any (array(select fired.tid from fired))
  ), placed as (
    insert into scheduled (execute_at, seq, queue, lane, schedule_id)
    select fired.next_place_at, fired.next_place, fired.queue, - fired.priority::bigint, fired.id
      from fired
     where fired.next_place is not null
  ), added as (
    insert into jobs (id, queue, type, data, priority, max_retries, execute_at)
    select tick_id(fired.id, tick.at), fired.queue, fired.type, fired.data, fired.priority, fired.max_retries, tick.at
      from fired cross join lateral unnest(fired.ticks) as tick (at)
     order by tick.at, fired.id
    on conflict on constraint job_id_exists_already do nothing
  ), noted as (
    update schedules
       set next_run = fired.next_tick, place = fired.next_place, place_at = fired.next_place_at, last_error = fired.error,
           last_run = coalesce(fired.ticks[cardinality(fired.ticks)], schedules.last_run),
           last_job = coalesce(tick_id(fired.id, fired.ticks[cardinality(fired.ticks)]), schedules.last_job)
      from fired
     where schedules.id = any (array(select fired.id from fired)) and schedules.id = fired.id
    returning fired.queue, fired.next_place_at
  )
  select sum(earliest.schedules), array_agg(earliest.queue), array_agg(earliest.at)
    from (select noted.queue, min(noted.next_place_at) as at, count(*) as schedules from noted group by noted.queue) as earliest
    into v_fired, v_queues, v_at;
  if v_queues is not null and not is_held('polling', 0) then  -- another worker may sleep beyond the next run
    perform notify_workers(array[next.queue], next.at) from unnest(v_queues, v_at) as next (queue, at) where next.at is not null;
  end if;
  return v_orphans + coalesce(v_fired, 0);
exception when others then
  if left(sqlstate, 2) in ('40', '53', '57', '58') or sqlstate = '55P03' and cardinality(fire_schedules.places) = 1 then
    return 0;  -- the places stay, and a later claim tries again
  end if;
  return fire_one_by_one(fire_schedules.places, fire_schedules.now, sqlerrm);
end;
$$;
comment on function fire_schedules(tid[], timestamptz) is
  'Private: add the jobs of the schedules that have these places in scheduled, and give them their next places.';
