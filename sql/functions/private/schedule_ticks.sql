-- schedule_ticks: return the last n ticks of a schedule from since to until, oldest first.
--
-- The cost is that of a few evaluations for each tick that is returned, however many there are in the whole time.
create or replace function schedule_ticks(schedule schedules, since timestamptz, until timestamptz, n integer)
  returns timestamptz[]
  language plpgsql
  stable
  set search_path from current
as $$
declare
  v_from   constant timestamptz := schedule_ticks.since - interval '1 microsecond';
  v_ticks  timestamptz[] := '{}';
  v_before timestamptz   := schedule_ticks.until + interval '1 microsecond';
  v_gap    interval      := interval '1 minute';
  v_tick   timestamptz; v_next timestamptz; v_low timestamptz; v_high timestamptz;
begin
  while cardinality(v_ticks) < schedule_ticks.n loop
    -- Go back in steps that double, until there is a tick.
    loop
      v_low := greatest(v_before - v_gap, v_from);
      v_tick := schedule_next(schedule_ticks.schedule, v_low);
      exit when v_tick < v_before or v_low = v_from;
      v_gap := v_gap * 2;
    end loop;
    if v_tick is null or v_tick >= v_before then
      return v_ticks;
    end if;
    -- Then find the last one by bisection. There is no tick from v_high on.
    v_high := v_before;
    loop
      v_next := schedule_next(schedule_ticks.schedule, v_tick);
      exit when v_next is null or v_next >= v_before;
      v_tick := v_next;
      v_next := v_tick + (v_high - v_tick) / 2;
      if schedule_next(schedule_ticks.schedule, v_next) < v_before then
        v_tick := schedule_next(schedule_ticks.schedule, v_next);
      else
        v_high := v_next;
      end if;
    end loop;
    v_gap := case when v_ticks = '{}' then interval '1 minute' else v_before - v_tick + interval '1 second' end;
    v_ticks := v_tick || v_ticks;
    v_before := v_tick;
  end loop;
  return v_ticks;
end;
$$;
comment on function schedule_ticks(schedules, timestamptz, timestamptz, integer) is
  'Private: return the last n ticks of a schedule from since to until, oldest first.';
