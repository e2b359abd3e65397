-- schema: let one installer in at a time, and create the schema when it is missing.
--
-- The setting pgjobq.schema names it.  Here and in trust.sql the search_path has pg_catalog
-- alone: what is in the schema is looked up, and never called.
do $$
declare
  v_schema constant name := current_setting('pgjobq.schema');
begin
  -- Nothing but an installer waits for this lock, so the wait may be a longer one.
  perform set_config('lock_timeout', '10s', true);
  perform pg_advisory_xact_lock(hashtext('pgjobq install'), hashtext(v_schema));
  -- The locks to come hold up enqueues.  A vacuum that runs by itself gives way to one that has waited for
  -- deadlock_timeout, which is longer, and which only some may set.
  perform set_config('lock_timeout', '500ms', true);
  if has_parameter_privilege('deadlock_timeout', 'set') then
    perform set_config('deadlock_timeout', '100ms', true);
  end if;

  if to_regnamespace(quote_ident(v_schema)) is not null then
    return;
  elsif not has_database_privilege(current_database(), 'create') then
    raise exception using errcode = 'insufficient_privilege',
      message = format('there is no schema %I, and role %I may not create it', v_schema, current_user),
      hint    = format('Have an administrator run: create schema %I authorization %I;', v_schema, current_user);
  end if;
  execute format('create schema %I', v_schema);
end;
$$;
