-- preflight: refuse a schema that does not belong to pgjobq, or that is newer than these files.
do $$
declare
  v_newest  constant integer := 5;  -- the last file in migrations/
  v_version integer;
  v_others  text;
begin
  if to_regclass('schema_version') is null then
    select string_agg(pg_class.relname, ', ' order by pg_class.relname)
      from pg_class
     where pg_class.relnamespace = quote_ident(current_schema())::regnamespace
       and pg_class.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
       and not exists (select from pg_depend
                        where (pg_depend.classid, pg_depend.objid, pg_depend.deptype) = ('pg_class'::regclass, pg_class.oid, 'e'))
      into v_others;
    if v_others is not null then
      raise exception using errcode = 'JQ005',
        message = format('schema %I contains tables that do not belong to pgjobq: %s', current_schema(), left(v_others, 200)),
        hint    = 'Install pgjobq into a schema of its own: pgjobq migrate --schema NAME.';
    end if;
  elsif obj_description(to_regclass('schema_version'), 'pg_class') is distinct from 'Migrations of pgjobq applied to this schema, one row each.' then
    raise exception using errcode = 'JQ005',
      message = format('schema %I contains a table schema_version that does not belong to pgjobq', current_schema()),
      hint    = 'Install pgjobq into a schema of its own: pgjobq migrate --schema NAME.';
  else
    select max(schema_version.version) from schema_version into v_version;
    if v_version > v_newest then
      raise exception using errcode = 'JQ004',
        message = format('schema %I is at version %s, but this pgjobq knows only versions up to %s', current_schema(), v_version, v_newest),
        hint    = 'Upgrade pgjobq to the version that migrated the schema, or to a later one.';
    end if;
  end if;
end;
$$;
