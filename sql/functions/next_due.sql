-- next_due: when the next scheduled job falls due, in seconds from now; null: none is
-- scheduled.  0 or less: one is due already.
create or replace function next_due()
  returns double precision
  language sql
  stable
  security definer
  set search_path from current
as $$
  select extract(epoch from least((select min(scheduled.execute_at) from scheduled),
                                  (select min(pauses.paused_until) from pauses where pauses.paused_until > clock_timestamp()))
                            - clock_timestamp())::double precision;
$$;
comment on function next_due() is 'Seconds until the next scheduled job falls due; null when none is scheduled.';
