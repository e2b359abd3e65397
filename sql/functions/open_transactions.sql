-- open_transactions: return the open transactions of other sessions that may have inserted into a table of pgjobq.
--
-- These are the transactions that have an id and hold RowExclusiveLock on the table, including prepared ones. An insert
-- takes the lock first, and gets an id before its triggers run. So if a transaction is not returned, then either it has
-- ended, and the next statement sees its rows, or its triggers run later.
--
-- among: return only those of these transactions that are still open. That reads no locks and costs almost nothing. A
-- call without it reads pg_locks, which blocks all other sessions for a moment.
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
      -- pg_locks shows only the lower 32 bits of an id. The upper ones are those of the next id, or one less.
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
  'Return the open transactions of other sessions that may have inserted into a table of pgjobq.';
