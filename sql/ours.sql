-- ours: mark the functions that this run has written, and revoke execute on them from PUBLIC.
--
-- The mark at the end of a function's comment distinguishes a function of an earlier version (see stale.sql) from a
-- user's own. age(xmin) is 0 or less for rows that this transaction or its savepoints wrote, but also for rows that
-- other transactions write meanwhile. So only rows whose xmin is this transaction itself get the mark.
do $$
declare
  v_mark constant text := '  Part of pgjobq.';
  v record;
begin
  for v in
    select pg_proc.oid::regprocedure as name, obj_description(pg_proc.oid, 'pg_proc') as comment,
           pg_proc.xmin = pg_current_xact_id()::xid as certain,
           has_function_privilege('public', pg_proc.oid, 'execute') as open
      from pg_proc
     where pg_proc.pronamespace = quote_ident(current_schema())::regnamespace
       and age(pg_proc.xmin) <= 0
  loop
    if v.certain and v.comment not like '%' || v_mark then
      execute format('comment on function %s is %L', v.name, v.comment || v_mark);
    end if;
    if v.open then
      execute format('revoke execute on function %s from public', v.name);
    end if;
  end loop;
end;
$$;
