-- stale: drop the functions of an earlier version that this run has not written again.
--
-- So a function that has other parameters now leaves no overload behind, which calls could mean
-- or fail to choose from.  Functions without the mark of ours.sql are left alone.  One that
-- something depends on, such as a view of a user's, stays, with a notice; but it is an error
-- when calls that leave out arguments could mean either that one or the new one.
--
-- A new result, or new names of parameters under the same types, is beyond `create or replace`:
-- then a migration drops the function, and what depends on it, first.
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
          message = format('function %s is of an earlier version of pgjobq, and cannot be dropped: %s',
                           v.function, replace(v_detail, E'\n', ', ')),
          hint    = 'Drop what depends on it, migrate, and create it again; nothing was changed.';
      end if;
      raise notice 'function % is of an earlier version of pgjobq, and stays: something depends on it. See: drop function %;',
        v.function, v.function;
    end;
  end loop;
end;
$$;
