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
  select extract(epoch from min(scheduled.execute_at) - clock_timestamp())::double precision from scheduled;
$$;
comment on function next_due() is 'Return the seconds until the next scheduled job falls due; null if none is scheduled.';
