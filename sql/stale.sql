-- stale: drop the functions of an earlier version that this run has not written again.
--
-- So a function that has other parameters now leaves no overload behind, which calls could mean
-- or fail to choose from.  Functions without the mark of ours.sql are left alone.  One that
-- something depends on, such as a view of a user's, stays, with a notice.
--
-- A new result, or new names of parameters under the same types, is beyond `create or replace`:
-- then a migration drops the function, and what depends on it, first.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select stale.oid
      from pg_proc as stale
     where age(stale.xmin) > 0
       and pg_has_role(stale.proowner, 'usage')
       and case
             when stale.pronamespace = quote_ident(current_schema())::regnamespace then
               obj_description(stale.oid, 'pg_proc') like '%Part of pgjobq.'
               or obj_description(stale.oid, 'pg_proc') ~ '^(Private|Trigger): '
                  and exists (select from pg_proc as now
                               where now.pronamespace = stale.pronamespace
                                 and now.proname = stale.proname
                                 and age(now.xmin) <= 0)
             when stale.pronamespace = to_regnamespace('public') and stale.proname = 'enqueue_job' then
               obj_description(stale.oid, 'pg_proc') like '%Calls the enqueue_job of pgjobq''s schema.'
               and exists (select from pg_depend join pg_proc as called on called.oid = pg_depend.refobjid
                            where (pg_depend.classid, pg_depend.objid, pg_depend.refclassid)
                                  = ('pg_proc'::regclass, stale.oid, 'pg_proc'::regclass)
                              and called.pronamespace = quote_ident(current_schema())::regnamespace)
               and exists (select from pg_proc as now
                            where now.pronamespace = stale.pronamespace
                              and now.proname = stale.proname
                              and age(now.xmin) <= 0)
             else false
           end
     order by stale.pronamespace = quote_ident(current_schema())::regnamespace
  loop
    begin
      execute format('drop function %s', v_function);
    exception when dependent_objects_still_exist then
      raise notice 'function % is of an earlier version of pgjobq, and stays: something depends on it. See: drop function %;', v_function, v_function;
    end;
  end loop;
end;
$$;
