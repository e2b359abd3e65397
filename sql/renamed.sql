-- renamed: after `alter schema rename`, make the functions use the schema's new name.
--
-- A function keeps the search_path with which it was created, so it would work in whatever schema has the old name now.
-- This runs before the migrations, because their statements may fire triggers.
do $$
declare
  v_path constant text := quote_ident(current_schema()) || ', pg_temp';
  v_renamed boolean := false;
  v_function regprocedure;
begin
  for v_function in
    select pg_proc.oid
      from pg_proc
     where pg_proc.pronamespace = quote_ident(current_schema())::regnamespace
       and obj_description(pg_proc.oid, 'pg_proc') like '%Part of pgjobq.'
       and exists (select from unnest(pg_proc.proconfig) as setting
                    where setting like 'search_path=%' and setting <> 'search_path=' || v_path)
  loop
    execute format('alter function %s set search_path = %s', v_function, v_path);
    v_renamed := true;
  end loop;
  if v_renamed then
    raise notice 'schema % was renamed, and its functions now use the new name. Restart the workers.', quote_ident(current_schema());
  end if;
end;
$$;
