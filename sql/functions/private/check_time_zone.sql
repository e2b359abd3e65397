-- check_time_zone: raise JQ009 if a time zone is not one of pg_timezone_names that `at time zone` reads as such.
--
-- PostgreSQL also accepts abbreviations, which have a fixed offset (CET is one hour, even in summer), and rules such as
-- FOO+3. A name in the usual form, without a digit, is none of these. The others are looked up in pg_timezone_names,
-- which takes about 20 ms, because it reads every file of the time zone database.
create or replace function check_time_zone(time_zone text)
  returns void
  language plpgsql
  stable
  set search_path from current
as $$
begin
  if check_time_zone.time_zone = 'UTC' then
    return;
  elsif check_time_zone.time_zone collate "C" ~ '^([A-Z][A-Za-z_]*)(/[A-Z][A-Za-z_-]*){1,2}$' then
    perform timestamptz 'epoch' at time zone check_time_zone.time_zone;
    return;
  elsif exists (select from pg_timezone_names
                 where pg_timezone_names.name = check_time_zone.time_zone collate "C"
                   and pg_timezone_names.name collate "C" ~ '^[A-Z]')  -- not localtime, posixrules or right/UTC
    and (check_time_zone.time_zone = 'GMT'
         or not exists (select from pg_timezone_abbrevs
                         where pg_timezone_abbrevs.abbrev = upper(check_time_zone.time_zone collate "C"))) then
    return;
  end if;
  raise invalid_parameter_value;
exception when invalid_parameter_value then
  raise exception using errcode = 'JQ009',
    message = case when check_time_zone.time_zone is null then 'time_zone: it may not be null'
                   else format('time_zone: %L is not the name of a time zone', left(check_time_zone.time_zone, 60)) end,
    hint    = 'Use UTC, or a region and a city such as Europe/Berlin; see pg_timezone_names.';
end;
$$;
comment on function check_time_zone(text) is 'Private: raise JQ009 if a time zone is not one of pg_timezone_names.';
