-- cron_match: return the first minute from a local time on that a cron expression matches. fields: see cron_fields.
--
-- local is a whole minute. Returns null if no minute matches within this year and the next 50.
create or replace function cron_match(fields bigint[], local timestamp)
  returns timestamp
  language plpgsql
  immutable
  set search_path from current
as $$
declare
  v_log2   constant float8  := 1 / ln(2::float8);  -- n & -n is the lowest bit of n, and its logarithm the bit's number
  v_year   integer := extract(year from cron_match.local);
  v_month  integer := extract(month from cron_match.local);
  v_day    integer := extract(day from cron_match.local);
  v_hour   integer := extract(hour from cron_match.local);
  v_minute integer := extract(minute from cron_match.local);
  v_end    constant integer := v_year + 50;
  v_days bigint; v_hours bigint; v_minutes bigint; v_first integer;
begin
  while v_year <= v_end loop
    if cron_match.fields[4] >> v_month & 1 = 1 then
      v_days := cron_days(cron_match.fields, v_year, v_month);
      loop
        v_days := v_days & (-1::bigint << v_day);
        exit when v_days = 0;
        v_first := ln((v_days & - v_days)::float8) * v_log2;
        if v_first > v_day then
          v_day := v_first; v_hour := 0; v_minute := 0;
        end if;
        v_hours := cron_match.fields[2] & (-1::bigint << v_hour);
        if v_hours >> v_hour & 1 = 1 then
          v_minutes := cron_match.fields[1] & (-1::bigint << v_minute);
          if v_minutes <> 0 then
            return make_timestamp(v_year, v_month, v_day, v_hour, (ln((v_minutes & - v_minutes)::float8) * v_log2)::integer, 0);
          end if;
          v_hours := v_hours & (-1::bigint << v_hour + 1);
        end if;
        if v_hours <> 0 then
          return make_timestamp(v_year, v_month, v_day, (ln((v_hours & - v_hours)::float8) * v_log2)::integer,
                                (ln((cron_match.fields[1] & - cron_match.fields[1])::float8) * v_log2)::integer, 0);
        end if;
        v_day := v_day + 1; v_hour := 0; v_minute := 0;
      end loop;
    end if;
    v_year := v_year + v_month / 12; v_month := v_month % 12 + 1;
    v_day := 1; v_hour := 0; v_minute := 0;
  end loop;
  return null;
end;
$$;
comment on function cron_match(bigint[], timestamp) is
  'Private: return the first minute from a local time on that a cron expression matches.';
