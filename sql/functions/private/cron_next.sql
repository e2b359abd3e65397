-- cron_next: return the first moment after another at which a cron expression is due in a time zone; null if none is.
--
-- fields: see cron_fields. The time zone was checked by check_time_zone. When the clock is set forward, a fixed time
-- that is skipped is due once, at the end of the gap. When the clock is set back, a fixed time is due in the first pass
-- alone. An expression whose minute or hour starts with * follows the clock, and is due in both passes. This is what
-- the cron of Debian does. Returns null if nothing is due within 50 years, or before the year 9999.
create or replace function cron_next(fields bigint[], time_zone text, after timestamptz)
  returns timestamptz
  language plpgsql
  stable
  set search_path from current
as $$
declare
  -- All are in UTC or in local time, because a sum of timestamptz and interval depends on the session's time zone.
  v_after constant timestamp := cron_next.after at time zone 'UTC';
  v_limit constant timestamp := least(v_after + interval '51 years', '9999-01-01');
  v_at    timestamp;
  v_local timestamp;
  v_match timestamp;
  v_end   timestamp;
  v_shift interval;
begin
  if cron_next.time_zone = 'UTC' then
    return nullif(least(cron_match(cron_next.fields, date_trunc('minute', v_after) + interval '1 minute'), v_limit), v_limit)
           at time zone 'UTC';
  elsif cron_next.fields[6] & 2 = 0 then
    v_match := date_trunc('minute', cron_next.after at time zone cron_next.time_zone);
    loop
      v_match := cron_match(cron_next.fields, v_match + interval '1 minute');
      if v_match is null or v_match >= v_limit then
        return null;
      end if;
      v_at := cron_instant(v_match, cron_next.time_zone);
      if v_at > v_after then
        return v_at at time zone 'UTC';
      end if;
    end loop;
  end if;
  -- Search for one day at a time, and up to a moment at which the clock is set, so that all of it has one offset.
  v_at := v_after + interval '1 microsecond';
  while v_at < v_limit loop
    v_local := v_at at time zone 'UTC' at time zone cron_next.time_zone;
    v_shift := v_local - v_at;
    v_end := v_at + interval '24 hours';
    if (v_end at time zone 'UTC' at time zone cron_next.time_zone) - v_end <> v_shift then
      v_end := cron_shift(v_at, v_end, cron_next.time_zone);
    end if;
    if date_trunc('minute', v_local) < v_local then
      v_local := date_trunc('minute', v_local) + interval '1 minute';
    end if;
    v_match := cron_match(cron_next.fields, v_local);
    if v_match - v_shift < v_end then
      return (v_match - v_shift) at time zone 'UTC';
    elsif v_match is null then
      return null;
    end if;
    -- Before the match, no minute of the day matches, unless the clock is set back at v_end.
    v_at := case when v_end < v_at + interval '24 hours' then v_end
                 else greatest(v_end, v_match - v_shift - interval '36 hours') end;
  end loop;
  return null;
end;
$$;
comment on function cron_next(bigint[], text, timestamptz) is
  'Private: return the first moment after another at which a cron expression is due in a time zone.';
