-- next_tick: return the first moment after another at which a cron expression is due in a time zone.
--
-- expression has five fields, or is @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually. A day must match
-- day-of-month or day-of-week; but both if one of them starts with *. When the clock is set forward, a fixed time that
-- is skipped is due once, at the end of the gap. When it is set back, a fixed time is due in the first pass alone. An
-- expression whose minute or hour starts with * follows the clock. Returns null if nothing is due within 50 years, or
-- before the year 9999. Raises JQ009 for an expression or a time zone that cannot be read.
create or replace function next_tick(expression text, time_zone text default 'UTC', after timestamptz default clock_timestamp())
  returns timestamptz
  language sql
  stable
  security definer
  set search_path from current
as $$
  select next_ticks(next_tick.expression, next_tick.time_zone, next_tick.after, 1);
$$;
comment on function next_tick(text, text, timestamptz) is
  'Return the first moment after another at which a cron expression is due in a time zone; null if there is none.';
