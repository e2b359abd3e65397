-- cron_days: return the days of a month on which a cron expression is due, as bits 1 to 31. fields: see cron_fields.
create or replace function cron_days(fields bigint[], year integer, month integer)
  returns bigint
  language plpgsql
  immutable
  set search_path from current
as $$
declare
  v_days  constant integer := case when cron_days.month <> 2 then 30 + (cron_days.month + cron_days.month / 8) % 2
                                   when cron_days.year % 4 = 0 and (cron_days.year % 100 <> 0 or cron_days.year % 400 = 0) then 29
                                   else 28 end;
  v_first constant integer := extract(dow from make_date(cron_days.year, cron_days.month, 1));
  v_all   constant bigint  := (1::bigint << v_days + 1) - 2;
  v_set   constant bigint  := cron_days.fields[3];
  v_dom   bigint := v_set & v_all;
  v_dow   bigint := 0;
  v_week  bigint;  -- the bits of one week, from the weekday of the first day
  v_last  integer;
begin
  if v_set & 1 <> 0 then
    v_dom := v_dom | (1::bigint << v_days);
  end if;
  if v_set >> 32 <> 0 then
    v_last := (v_first + v_days - 1) % 7;
    v_dom := v_dom | (1::bigint << v_days - case v_last when 0 then 2 when 6 then 1 else 0 end);
  end if;
  if cron_days.fields[5] = 127 then
    v_dow := v_all;
  else
    v_week := cron_days.fields[5] & 127;
    v_week := (v_week >> v_first | (v_week << 7 - v_first)) & 127;
    v_dow := v_week * 270549121 << 1;  -- the week five times: 2^0 + 2^7 + 2^14 + 2^21 + 2^28
    if cron_days.fields[5] > 127 then
      for v_nth in 1 .. 5 loop
        v_week := cron_days.fields[5] >> 7 * v_nth & 127;
        v_dow := v_dow | (((v_week >> v_first | (v_week << 7 - v_first)) & 127) << 7 * v_nth - 6);
      end loop;
      v_week := cron_days.fields[5] >> 42 & 127;
      v_last := (v_first + v_days) % 7;  -- the weekday of the seventh day from the end
      v_dow := v_dow | (((v_week >> v_last | (v_week << 7 - v_last)) & 127) << v_days - 6);
    end if;
  end if;
  return v_all & case when cron_days.fields[6] & 1 = 1 then v_dom & v_dow else v_dom | v_dow end;
end;
$$;
comment on function cron_days(bigint[], integer, integer) is
  'Private: return the days of a month on which a cron expression is due, as bits.';
