-- next_ticks: return the first n moments after another at which a cron expression is due in a time zone; see next_tick.
--
-- n is from 1 to 10,000. It returns fewer if there are no more.
create or replace function next_ticks(expression text, time_zone text default 'UTC', after timestamptz default clock_timestamp(),
                                      n integer default 5)
  returns setof timestamptz
  language plpgsql
  stable
  security definer
  set search_path from current
as $$
declare
  v_fields constant bigint[] := cron_fields(next_ticks.expression);
  v_tick   timestamptz := next_ticks.after;
begin
  perform check_time_zone(next_ticks.time_zone);
  if coalesce(next_ticks.n, 0) not between 1 and 10000 then
    raise exception using errcode = 'JQ009', hint = 'Use 1 to 10000.',
      message = format('n: %s is not a number of ticks', coalesce(next_ticks.n::text, 'null'));
  elsif v_tick is null or v_tick < timestamptz '0001-01-02 00:00:00Z' or v_tick >= timestamptz '9999-12-31 00:00:00Z' then
    raise exception using errcode = 'JQ009', hint = 'Use a time in the years 1 to 9999.',
      message = format('after: %s is not a time', coalesce(v_tick::text, 'null'));
  end if;
  for v_nth in 1 .. next_ticks.n loop
    v_tick := cron_next(v_fields, next_ticks.time_zone, v_tick);
    exit when v_tick is null;
    return next v_tick;
  end loop;
end;
$$;
comment on function next_ticks(text, text, timestamptz, integer) is
  'Return the first n moments after another at which a cron expression is due in a time zone.';
