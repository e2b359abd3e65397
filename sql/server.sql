-- server: refuse a server on which pgjobq cannot work. `pgjobq check` runs this file too.
do $$
begin
  if current_setting('server_version_num')::integer < 150000 then
    raise exception using errcode = 'feature_not_supported',
      message = format('PostgreSQL %s is too old for pgjobq', current_setting('server_version')),
      hint    = 'Use PostgreSQL 15 or later.';
  elsif pg_is_in_recovery() then
    raise exception using errcode = 'read_only_sql_transaction',
      message = 'this server is a standby, which is read-only',
      hint    = 'Connect to the primary server.';
  elsif current_setting('transaction_read_only') = 'on' then
    raise exception using errcode = 'read_only_sql_transaction',
      message = format('database %I is read-only for role %I', current_database(), current_user),
      hint    = 'Set default_transaction_read_only to off for the database or the role.';
  end if;
end;
$$;
