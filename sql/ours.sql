-- ours: mark the functions that this run has written, and take them from PUBLIC.
--
-- The mark, at the end of the comment, tells a function of an earlier version (see stale.sql)
-- from a user's own.  A row that this transaction has written, or one of its savepoints, is not
-- older than the transaction; nor is one that another transaction writes meanwhile, which must
-- not have the mark.
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
