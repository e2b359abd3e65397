-- cron_fields: return a cron expression as sets of bits: minute, hour, day-of-month, month, day-of-week (see cron_field).
--
-- The sixth number has bit 0 if a day must match both day-of-month and day-of-week, which is so if one of them starts
-- with *. It has bit 1 if the minute or the hour starts with *; such an expression follows the clock when it is set
-- forward or back. Raises JQ009 for an expression that cannot be read.
create or replace function cron_fields(expression text)
  returns bigint[]
  language plpgsql
  immutable
  set search_path from current
as $$
declare
  v_expression constant text   collate "C" := upper(btrim(cron_fields.expression collate "C", E' \t\r\n'));
  v_part                text[] collate "C";
  v_message             text;
begin
  if length(v_expression) <= 255 then
    v_part := string_to_array(regexp_replace(
      case v_expression when '@HOURLY' then '0 * * * *' when '@DAILY' then '0 0 * * *' when '@MIDNIGHT' then '0 0 * * *'
                        when '@WEEKLY' then '0 0 * * 0' when '@MONTHLY' then '0 0 1 * *' when '@YEARLY' then '0 0 1 1 *'
                        when '@ANNUALLY' then '0 0 1 1 *' else v_expression end, '[ \t\r\n]+', ' ', 'g'), ' ');
  end if;
  if v_part is null then
    v_message := case when v_expression is null then 'expression: it may not be null'
                      else format('expression: has %s characters, more than 255', length(v_expression)) end;
  elsif v_expression like '@%' and cardinality(v_part) = 1 then
    v_message := format('expression: %L is not a name that schedules have', left(cron_fields.expression, 40));
  elsif cardinality(v_part) = 6 then
    v_message := 'expression: has six fields, but a schedule has no seconds';
  elsif cardinality(v_part) <> 5 then
    v_message := format('expression: has %s fields, not five', cardinality(array_remove(v_part, '')));
  else
    return array[cron_field(1, v_part[1]), cron_field(2, v_part[2]), cron_field(3, v_part[3]), cron_field(4, v_part[4]),
                 cron_field(5, v_part[5]),
                 case when v_part[3] like '*%' or v_part[5] like '*%' then 1 else 0 end
                 + case when v_part[1] like '*%' or v_part[2] like '*%' then 2 else 0 end];
  end if;
  raise exception using errcode = 'JQ009', message = v_message,
    hint = case when cardinality(v_part) = 6 then 'Leave out the seconds. For a schedule of seconds, use an interval.'
                else 'Use minute, hour, day-of-month, month and day-of-week, such as 0 9 * * 1-5; or @hourly, @daily, '
                     '@midnight, @weekly, @monthly, @yearly or @annually.' end;
end;
$$;
comment on function cron_fields(text) is 'Private: return a cron expression as sets of bits, one for each field.';
