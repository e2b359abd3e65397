-- trust: refuse a schema in which another role owns objects, or may create them.
--
-- The rest of the installation calls functions and operators without naming their schema. A role that can create
-- objects in the schema could therefore make the installer, perhaps a superuser, run its code.
do $$
declare
  v_schema constant oid     := to_regnamespace(quote_ident(current_setting('pgjobq.schema')));
  v_name   constant text    := quote_ident(current_setting('pgjobq.schema'));
  v_me     constant oid     := (select pg_roles.oid from pg_roles where pg_roles.rolname = current_user);
  v_super  constant boolean := (select pg_roles.rolsuper from pg_roles where pg_roles.oid = v_me);
  v_supers constant oid[]   := array(select pg_roles.oid from pg_roles where pg_roles.rolsuper);
  v_owner  oid;
  v_others text;
begin
  select case when pg_namespace.nspowner = 'pg_database_owner'::regrole then pg_database.datdba else pg_namespace.nspowner end
    from pg_namespace, pg_database
   where pg_namespace.oid = v_schema and pg_database.datname = current_database()
    into v_owner;
  -- A superuser trusts other superusers.
  if v_owner <> v_me and not (v_super and v_owner = any (v_supers)) then
    raise exception using errcode = 'JQ005',
      message = format('schema %s belongs to role %s, so role %I may not install into it', v_name, v_owner::regrole, current_user),
      hint    = format('Connect as %s, or choose another schema: pgjobq migrate --schema NAME.', v_owner::regrole);
  end if;

  if exists (select from pg_namespace, aclexplode(pg_namespace.nspacl) as acl
              where pg_namespace.oid = v_schema and acl.grantee = 0 and acl.privilege_type = 'CREATE') then
    v_others := 'public';
  else
    -- A member of the owner or of the installer can act as that role, so it is trusted too.
    select string_agg(quote_ident(pg_roles.rolname), ', ' order by pg_roles.rolname)
      from pg_roles
     where has_schema_privilege(pg_roles.oid, v_schema, 'create')
       and not pg_has_role(pg_roles.oid, v_me, 'member')
       and not pg_has_role(pg_roles.oid, v_owner, 'member')
       and pg_roles.oid <> 'pg_database_owner'::regrole
      into v_others;
  end if;
  if v_others is not null then
    raise exception using errcode = 'JQ005',
      message = format('roles other than the owner may create objects in schema %s: %s', v_name, v_others),
      hint    = format('Run: revoke create on schema %s from %s; or choose another schema: pgjobq migrate --schema NAME.',
                       v_name, v_others);
  end if;

  select string_agg(format('%s of %s', pg_describe_object(object.class, object.oid, 0), object.owner::regrole), ', ')
    from (select 'pg_class'::regclass, pg_class.oid, pg_class.relowner from pg_class where pg_class.relnamespace = v_schema
          union all
          select 'pg_proc'::regclass, pg_proc.oid, pg_proc.proowner from pg_proc where pg_proc.pronamespace = v_schema
          union all
          select 'pg_operator'::regclass, pg_operator.oid, pg_operator.oprowner from pg_operator where pg_operator.oprnamespace = v_schema
          union all
          select 'pg_type'::regclass, pg_type.oid, pg_type.typowner from pg_type
           where pg_type.typnamespace = v_schema and pg_type.typrelid = 0 and pg_type.typcategory <> 'A'
         ) as object (class, oid, owner)
   where object.owner <> v_me
     and not (object.owner = any (v_supers)
              and (v_super or exists (select from pg_depend
                                       where (pg_depend.classid, pg_depend.objid, pg_depend.deptype) = (object.class, object.oid, 'e'))))
    into v_others;
  if v_others is not null then
    raise exception using errcode = 'JQ005',
      message = format('schema %s contains objects of other roles: %s', v_name, left(v_others, 200)),
      hint    = format('Drop them or give them to %I, or choose another schema: pgjobq migrate --schema NAME.', current_user);
  end if;
end;
$$;
