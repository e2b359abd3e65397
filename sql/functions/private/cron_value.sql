-- cron_value: return the number of a word in a field of a cron expression; null if it has none.
--
-- names: the names of the values from low on; null if the field has none. A large number is returned as it is.
create or replace function cron_value(names text[], low integer, word text)
  returns numeric
  language sql
  immutable
  set search_path from current
as $$
  select case when cron_value.word ~ '^[0-9]+$' then cron_value.word::numeric
              else array_position(cron_value.names, cron_value.word) - 1 + cron_value.low end;
$$;
comment on function cron_value(text[], integer, text) is
  'Private: return the number of a word in a field of a cron expression; null if it has none.';
