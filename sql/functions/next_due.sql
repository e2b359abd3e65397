-- next_due: return the seconds until the next scheduled job falls due.
--
-- Returns 0 or less if a job is due already, and null if none is scheduled.
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
comment on function next_due() is 'Return the seconds until the next scheduled job falls due; null if none is scheduled.';
