-- notify_waiters: notify the sessions that wait for these jobs, which have ended or are deleted.
--
-- Call it after the change, in the same transaction: a session that registers later sees that transaction among
-- open_transactions. The payload is the job's id. A transaction in repeatable read or serializable may not see a session
-- that has just registered, so it notifies every session that waits.
create or replace function notify_waiters(ids text[])
  returns void
  language plpgsql
  volatile
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
begin
  if not is_waited() then
    return;
  elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform pg_notify(waiting_channel(waiters.pid), ended.id)
       from waiters() as waiters (pid)
      cross join unnest(notify_waiters.ids) as ended (id);
  else
    perform pg_notify(waiting_channel(waits.waiter), waits.job_id)
       from waits
      where waits.job_id = any (notify_waiters.ids collate "C");
  end if;
end;
$$;
comment on function notify_waiters(text[]) is
  'Private: notify the sessions that wait for these jobs, which have ended or are deleted.';
