-- schedule_step: return the microseconds of an interval schedule's expression: seconds, or an interval without months.
--
-- Raises JQ009 for anything else, and for less than a second.
create or replace function schedule_step(expression text)
  returns bigint
  language plpgsql
  stable
  set search_path from current
  set intervalstyle = postgres
as $$
declare
  v_step interval;
begin
  if length(schedule_step.expression) <= 100 then
    v_step := case when schedule_step.expression collate "C" ~ '^[0-9]+([.][0-9]+)?$'
                   then (schedule_step.expression || ' seconds')::interval else schedule_step.expression::interval end;
  end if;
  if extract(year from v_step) = 0 and extract(month from v_step) = 0 and isfinite(v_step)
     and v_step between interval '1 second' and interval '36525 days' then
    return (extract(epoch from v_step) * 1000000)::bigint;
  end if;
  raise invalid_datetime_format;
exception when data_exception then
  raise exception using errcode = 'JQ009',
    message = format('expression: %s is not an interval from a second to 100 years',
                     coalesce(quote_literal(left(schedule_step.expression, 40)), 'null')),
    hint    = 'Use seconds, such as 90, or days, hours, minutes and seconds, such as 15 minutes. For months, use cron.';
end;
$$;
comment on function schedule_step(text) is 'Private: return the microseconds of an interval schedule''s expression.';
