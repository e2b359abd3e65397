-- error_class: return the class of an error, which is the word before the colon in its first line.
--
-- ValueError for "ValueError: no such order", WorkerDied for the text of a rescue, and null for a text that does not
-- begin with a class, such as "no such order".
create or replace function error_class(error text)
  returns text
  language plpgsql
  immutable
  parallel safe
  set search_path from current
as $$
begin
  if left(error_class.error, 40) ~ '^worker [0-9]+ stopped or died ' then
    return 'WorkerDied';
  end if;
  return substring(error_line(error_class.error) collate "C" from E'^([^][ \t:;,(){}<>"''`/\\\\]{1,255})(?::|$)');
end;
$$;
comment on function error_class(text) is 'Return the class of an error, which is the word before the colon in its first line.';
