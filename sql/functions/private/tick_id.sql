-- tick_id: return the id of a schedule's job for a tick, such as nightly@2026-11-25T09:00:00Z.
--
-- The moment is in UTC, and has a fraction only if it is not a whole second.
create or replace function tick_id(schedule_id text, tick timestamptz)
  returns text
  language sql
  stable
  set search_path from current
as $$
  select tick_id.schedule_id || '@'
         || to_char(tick_id.tick at time zone 'UTC', case when date_trunc('second', tick_id.tick) = tick_id.tick
                                                          then 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
                                                          else 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"' end);
$$;
comment on function tick_id(text, timestamptz) is 'Private: return the id of a schedule''s job for a tick.';
