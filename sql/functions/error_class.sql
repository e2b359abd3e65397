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
declare
  v_word constant text collate "C" := split_part(error_line(error_class.error) collate "C", ':', 1);
begin
  if v_word like 'worker % stopped or died %' then
    return 'WorkerDied';
  elsif length(v_word) between 1 and 255 and v_word !~ E'[][ \t;,(){}<>"''`/\\\\]' then
    return v_word;
  end if;
  return null;
end;
$$;
comment on function error_class(text) is 'Return the class of an error, which is the word before the colon in its first line.';
