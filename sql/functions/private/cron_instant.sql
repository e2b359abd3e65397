-- cron_instant: return the moment, in UTC, of a local time: in its first pass, or at the end of the gap that skips it.
--
-- `at time zone` returns the second pass when the clock is set back. When it is set forward, it counts on from before
-- the gap, so that 02:30 becomes 03:30.
create or replace function cron_instant(local timestamp, time_zone text)
  returns timestamp
  language plpgsql
  stable
  set search_path from current
as $$
declare
  v_at    timestamp := cron_instant.local at time zone cron_instant.time_zone at time zone 'UTC';
  v_local constant timestamp := v_at at time zone 'UTC' at time zone cron_instant.time_zone;
  v_day   constant timestamp := v_at - interval '24 hours';
  v_first timestamp;
begin
  if v_local <> cron_instant.local then
    return cron_shift(v_at - (v_local - cron_instant.local), v_at, cron_instant.time_zone);
  end if;
  v_first := cron_instant.local - ((v_day at time zone 'UTC' at time zone cron_instant.time_zone) - v_day);
  if v_first < v_at and v_first at time zone 'UTC' at time zone cron_instant.time_zone = cron_instant.local then
    return v_first;
  end if;
  return v_at;
end;
$$;
comment on function cron_instant(timestamp, text) is
  'Private: return the moment, in UTC, of a local time: in its first pass, or at the end of the gap that skips it.';
