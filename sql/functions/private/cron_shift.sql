-- cron_shift: return the moment between two others, in UTC, at which the clock of a time zone is set.
--
-- The offsets at both moments differ, and they are at most a day apart.
create or replace function cron_shift(before timestamp, after timestamp, time_zone text)
  returns timestamp
  language plpgsql
  stable
  set search_path from current
as $$
declare
  -- Clocks are set at whole seconds.
  v_before timestamp := date_trunc('second', cron_shift.before);
  v_after  timestamp := date_trunc('second', cron_shift.after);
  v_middle timestamp;
  v_shift  constant interval := (v_before at time zone 'UTC' at time zone cron_shift.time_zone) - v_before;
begin
  while v_after - v_before > interval '1 second' loop
    v_middle := v_before + date_trunc('second', (v_after - v_before) / 2);
    if (v_middle at time zone 'UTC' at time zone cron_shift.time_zone) - v_middle = v_shift then
      v_before := v_middle;
    else
      v_after := v_middle;
    end if;
  end loop;
  return v_after;
end;
$$;
comment on function cron_shift(timestamp, timestamp, text) is
  'Private: return the moment between two others, in UTC, at which the clock of a time zone is set.';
