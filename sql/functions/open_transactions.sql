-- open_transactions: the open transactions of others that may have inserted into a table of pgjobq.
--
-- Those that hold RowExclusiveLock on it and have an id.  An insert takes the lock first,
-- and an id before its triggers run.  So a transaction that is not in the answer has ended,
-- and what it inserted is visible to the next statement, or it runs its triggers later.
-- Prepared transactions are among them.
--
-- among: which of these are still open.  That looks at no lock, and costs next to nothing;
-- the first look reads pg_locks, which stops all other sessions for a moment.
create or replace function open_transactions(relation regclass, among xid8[] default null)
  returns xid8[]
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_snapshot constant pg_snapshot := pg_current_snapshot();
  v_next     constant bigint      := pg_snapshot_xmax(v_snapshot)::text::bigint;
begin
  if open_transactions.among is not null then
    return array(select given.id from unnest(open_transactions.among) as given (id)
                  where not pg_visible_in_snapshot(given.id, v_snapshot));
  end if;
  return array(
    with lock as materialized (
      select * from pg_locks where pg_locks.locktype in ('relation', 'transactionid') and pg_locks.granted
    ), own as (
      -- Locks show the lower 32 bits; the rest are those of the next id, or one less.
      select distinct v_next - (((v_next - lock.transactionid::text::bigint + 2147483648) & 4294967295) - 2147483648) as id
        from lock
        join lock as insert on insert.virtualtransaction = lock.virtualtransaction
       where lock.locktype = 'transactionid'
         and insert.locktype = 'relation'
         and insert.database = (select pg_database.oid from pg_database where pg_database.datname = current_database())
         and insert.relation = open_transactions.relation
         and insert.mode = 'RowExclusiveLock'
         and insert.pid is distinct from pg_backend_pid()
    )
    select own.id::text::xid8 from own);
end;
$$;
comment on function open_transactions(regclass, xid8[]) is
  'The open transactions of others that may have inserted into a table of pgjobq.';
