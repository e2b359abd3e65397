-- ring_doorbell: notify the workers if one that sleeps wants a job of this queue that
-- is due at execute_at (null: at once).
--
-- A NOTIFY serialises all commits of the cluster that carry one, so it is sent only
-- when it can wake somebody: the worker serves the queue, and would not wake by itself
-- before the job is due.  A transaction in repeatable read or serializable looks with an
-- old snapshot and cannot see who has just gone to sleep, so it always rings.  The channel
-- bears the schema's name, the payload the queue's.
create or replace function ring_doorbell(queue text, execute_at timestamptz)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable')
     or exists (
       select from doorbell
        where (doorbell.queues is null or ring_doorbell.queue = any (doorbell.queues))
          and (ring_doorbell.execute_at is null or ring_doorbell.execute_at < doorbell.alarm))
  then
    perform pg_notify(current_schema(), ring_doorbell.queue);
  end if;
end;
$$;
comment on function ring_doorbell(text, timestamptz) is
  'Private: notify the workers if one that sleeps wants a job of this queue due at that time.';
