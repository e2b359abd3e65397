-- error_line: return the first line of an error that is not empty, at most 500 characters of it.
--
-- It reads no more than the first 1,000 characters, because an error may be long.
create or replace function error_line(error text)
  returns text
  language plpgsql
  immutable
  parallel safe
  set search_path from current
as $$
begin
  return left(split_part(translate(ltrim(left(error_line.error collate "C", 1000), E' \t\r\n'), E'\r', E'\n'), E'\n', 1), 500);
end;
$$;
comment on function error_line(text) is 'Return the first line of an error, at most 500 characters of it.';
