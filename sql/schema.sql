-- schema: make other installers wait, and create the schema if it does not exist.
--
-- The setting pgjobq.schema is its name. Here and in trust.sql the search_path contains only pg_catalog, so that
-- nothing in the schema is called.
do $$
declare
  v_schema constant name := current_setting('pgjobq.schema');
begin
  -- Only installers wait for this lock, so this wait may be long.
  perform set_config('lock_timeout', '10s', true);
  perform pg_advisory_xact_lock(hashtext('pgjobq install'), hashtext(v_schema));
  -- Enqueues wait while this transaction waits for a lock on a table. An autovacuum gives way to a transaction that has
  -- waited for deadlock_timeout, which is therefore set below lock_timeout. Not every role may set it.
  perform set_config('lock_timeout', '500ms', true);
  if has_parameter_privilege('deadlock_timeout', 'set') then
    perform set_config('deadlock_timeout', '100ms', true);
  end if;

  if to_regnamespace(quote_ident(v_schema)) is not null then
    return;
  elsif not has_database_privilege(current_database(), 'create') then
    raise exception using errcode = 'insufficient_privilege',
      message = format('schema %I does not exist, and role %I may not create it', v_schema, current_user),
      hint    = format('Ask an administrator to run: create schema %I authorization %I;', v_schema, current_user);
  end if;
  execute format('create schema %I', v_schema);
end;
$$;
