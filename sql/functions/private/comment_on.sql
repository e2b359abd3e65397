-- comment_on: write the comment of a table, a sequence or a column, if it differs.
--
-- Writing it waits for a vacuum of the table, and blocks the next one.
create or replace function comment_on(kind text, name text, comment text)
  returns void
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  if comment_on.comment is distinct from (
     case comment_on.kind
       when 'column' then (select col_description(pg_attribute.attrelid, pg_attribute.attnum)
                             from pg_attribute
                            where pg_attribute.attrelid = split_part(comment_on.name, '.', 1)::regclass
                              and pg_attribute.attname = split_part(comment_on.name, '.', 2))
       else obj_description(comment_on.name::regclass, 'pg_class')
     end)
  then
    execute format('comment on %s %s is %L', comment_on.kind, comment_on.name, comment_on.comment);
  end if;
end;
$$;
comment on function comment_on(text, text, text) is
  'Private: write the comment of a table, a sequence or a column, if it differs.';
