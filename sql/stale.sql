-- stale: drop the functions of an earlier version that this run has not replaced.
--
-- Without this, a function whose parameters have changed would leave an overload behind. A call could then reach the
-- overload, or become ambiguous. A function is of an earlier version if it has the mark of ours.sql, or the comment of
-- a private function and the name of a current one. All others are kept. A function that something depends on, such as
-- a user's view, is kept too, with a notice; but if it has defaults and the name of a current one, the installation
-- fails, because calls that leave out arguments would be ambiguous.
--
-- `create or replace` cannot change a function's result, or the names of parameters whose types stay the same. For
-- these changes a migration must first drop the function and what depends on it.
do $$
declare
  v        record;
  v_detail text;
begin
  for v in
    select stale.oid::regprocedure as function, newer.is_there and stale.pronargdefaults > 0 as ambiguous
      from pg_proc as stale
     cross join lateral (
       select exists (select from pg_proc as now
                       where now.pronamespace = stale.pronamespace
                         and now.proname = stale.proname
                         and age(now.xmin) <= 0)) as newer (is_there)
     where age(stale.xmin) > 0
       and pg_has_role(stale.proowner, 'usage')
       and case
             when stale.pronamespace = quote_ident(current_schema())::regnamespace then
               obj_description(stale.oid, 'pg_proc') like '%Part of pgjobq.'
               or obj_description(stale.oid, 'pg_proc') ~ '^(Private|Trigger): ' and newer.is_there
             when stale.pronamespace = to_regnamespace('public') and stale.proname = 'enqueue_job' then
               obj_description(stale.oid, 'pg_proc') like '%Calls the enqueue_job of pgjobq''s schema.'
               and exists (select from pg_depend join pg_proc as called on called.oid = pg_depend.refobjid
                            where (pg_depend.classid, pg_depend.objid, pg_depend.refclassid)
                                  = ('pg_proc'::regclass, stale.oid, 'pg_proc'::regclass)
                              and called.pronamespace = quote_ident(current_schema())::regnamespace)
               and newer.is_there
             else false
           end
     order by stale.pronamespace = quote_ident(current_schema())::regnamespace
  loop
    begin
      execute format('drop function %s', v.function);
    exception when dependent_objects_still_exist then
      get stacked diagnostics v_detail = pg_exception_detail;
      if v.ambiguous then
        raise exception using errcode = 'dependent_objects_still_exist',
          message = format('function %s of an earlier version of pgjobq cannot be dropped: %s', v.function,
                           replace(v_detail, E'\n', ', ')),
          hint    = 'Drop the objects that depend on it, migrate, and create them again. Nothing was changed.';
      end if;
      raise notice 'function % of an earlier version of pgjobq was kept, because other objects depend on it. To list them, run: drop function %;', v.function, v.function;
    end;
  end loop;
end;
$$;
