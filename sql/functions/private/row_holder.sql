-- row_holder: name the transaction that has locked a job's row, as far as it can be found; null: the row is free.
--
-- xmax is the id of the last transaction that locked or changed this version of the row, which may have ended. So this
-- tries to lock the row as a claim does, in a subtransaction that ends at once. It does not try if xmax is 0, because
-- the row is free then, or in a read-only transaction, where only pg_locks can tell. If several transactions share the
-- lock, xmax is not the id of a transaction, and their sessions are not found. Any role may read what this returns.
create or replace function row_holder(job_id text)
  returns text
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_xmax xid;
  v_free boolean := false;
  v_held boolean := current_setting('transaction_read_only') = 'off';  -- whether it is held if its session is not found
begin
  select jobs.xmax from jobs where jobs.id = row_holder.job_id collate "C" into v_xmax;
  if not found or v_xmax = '0' then
    return null;
  end if;
  if v_held then
    begin
      perform from jobs where jobs.id = row_holder.job_id collate "C" for no key update skip locked;
      v_free := found;
      raise exception 'release the row';
    exception
      when raise_exception then null;
      when serialization_failure then v_free := true;  -- the other transaction has committed
    end;
    if v_free then
      return null;
    end if;
  end if;
  return coalesce(
    (select case when own.pid is null then (select format('the prepared transaction %L', pg_prepared_xacts.gid)
                                              from pg_prepared_xacts where pg_prepared_xacts.transaction = v_xmax)
                 else (select format('the session with pid %s%s', own.pid, ' (' || nullif(pg_stat_activity.application_name, '') || ')')
                         from (values (1)) as always
                         left join pg_stat_activity on pg_stat_activity.pid = own.pid) end
       from pg_locks as own
      where own.locktype = 'transactionid' and own.transactionid = v_xmax and own.granted
        and exists (select from pg_locks
                     where pg_locks.virtualtransaction = own.virtualtransaction and pg_locks.relation = 'jobs'::regclass)
      limit 1),
    case when v_held then 'another transaction' end);
end;
$$;
comment on function row_holder(text) is 'Private: name the transaction that has locked a job''s row; null: the row is free.';
