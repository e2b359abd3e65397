-- cron_field: return one field of a cron expression as a set of bits.
--
-- nth is 1 to 5 for minute, hour, day-of-month, month and day-of-week, which decides the names and the range. Bit n
-- stands for the value n, with these exceptions. day-of-month: bit 0 is the last day of the month, and bit 32 its last
-- weekday. day-of-week: there are seven groups of seven bits, Sunday first. The first group is every such day, the next
-- five are the first to the fifth of the month (1#2), and the seventh is the last of the month (5L).
--
-- The syntax is that of cronsim. Raises JQ009 for anything else. The work is bounded by the length of the field.
create or replace function cron_field(nth integer, field text)
  returns bigint
  language plpgsql
  immutable
  set search_path from current
as $$
declare
  v_low   constant integer := case when cron_field.nth in (3, 4) then 1 else 0 end;
  v_high  constant integer := ('{59,23,31,12,7}'::integer[])[cron_field.nth];
  v_names constant text[]  := case cron_field.nth when 4 then '{JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC}'::text[]
                                                  when 5 then '{SUN,MON,TUE,WED,THU,FRI,SAT}' end;
  v_set   bigint := 0;
  v_item  text;
  v_part  text[];
  v_from  numeric; v_to numeric; v_step numeric;
begin
  foreach v_item in array string_to_array(cron_field.field, ',') loop
    if cron_field.nth = 3 and v_item collate "C" ~ '^LW?(/0*[1-9][0-9]*)?$' then
      v_set := v_set | case when v_item like 'LW%' then 1::bigint << 32 else 1 end;
      continue;
    end if;
    -- The parts are: from, to, step, and # or L.
    v_part := regexp_match(v_item collate "C", case cron_field.nth
      when 5 then '^(\*|[0-9]+|[A-Z]{3})(?:-([0-9]+|[A-Z]{3}))?(?:/([0-9]+))?$|^([0-9]+|[A-Z]{3})#([0-9]+)$|^([0-9]+)L$'
      else '^(\*|[0-9]+|[A-Z]{3})(?:-([0-9]+|[A-Z]{3}))?(?:/([0-9]+))?$' end);
    v_from := case coalesce(v_part[1], v_part[4], v_part[6])
                when '*' then case when v_part[2] is null then v_low end
                else cron_value(v_names, v_low, coalesce(v_part[1], v_part[4], v_part[6])) end;
    v_step := coalesce(v_part[3]::numeric, 1);
    v_to := case when v_part[2] is not null then cron_value(v_names, v_low, v_part[2])
                 when v_part[1] = '*' then v_high else v_from end;
    if v_part[3] is not null and v_to = v_from then
      v_to := v_high;  -- a step after a single value runs to the end of the range
    end if;
    if v_from between v_low and v_high and v_to between v_from and v_high and v_step > 0
       and (v_part[5] is null or v_part[5]::numeric between 1 and 5) then
      if v_part[4] is not null then
        v_set := v_set | (1::bigint << 7 * v_part[5]::integer + v_from::integer % 7);
      elsif v_part[6] is not null then
        v_set := v_set | (1::bigint << 42 + v_from::integer % 7);
      else
        for v_value in v_from::integer .. v_to::integer by least(v_step, 60)::integer loop
          v_set := v_set | (1::bigint << case when cron_field.nth = 5 then v_value % 7 else v_value end);
        end loop;
      end if;
    else
      raise exception using errcode = 'JQ009',
        message = format('expression: %L is not a %s', left(v_item, 40),
                         ('{minute,hour,day-of-month,month,day-of-week}'::text[])[cron_field.nth]),
        hint    = format('Use numbers from %s to %s%s, ranges such as 1-5, steps such as */2, and lists such as 1,3.', v_low, v_high,
                         case when v_names is not null then format(', names from %s to %s', v_names[1], v_names[cardinality(v_names)])
                              when cron_field.nth = 3 then ', L for the last day of the month' else '' end);
    end if;
  end loop;
  return v_set;
end;
$$;
comment on function cron_field(integer, text) is 'Private: return one field of a cron expression as a set of bits.';
