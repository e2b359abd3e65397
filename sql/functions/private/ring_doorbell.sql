-- ring_doorbell: notify a worker that sleeps and wants a job of this queue that is due at
-- execute_at (null: at once).
--
-- A NOTIFY serialises all commits of the cluster that carry one, so it is sent only when it
-- can wake somebody, and to one worker: the first that sleeps.  A second is told to look after
-- it (empty payload), should it die on the way.  The payload is the queue's name.  A transaction
-- in repeatable read or serializable cannot see who has just registered: unless one polls who
-- serves every queue, it rings for all who listen on the channel that bears the schema's name.
create or replace function ring_doorbell(queue text, execute_at timestamptz)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_channels text[];
begin
  if is_held('ready', 0) then
    return;
  elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform pg_notify(current_schema(), ring_doorbell.queue);
  else
    v_channels := sleepers(array[ring_doorbell.queue], ring_doorbell.execute_at);
    if v_channels <> '{}' then
      perform pg_notify(v_channels[1], ring_doorbell.queue);
      if v_channels[2] <> v_channels[1] then
        perform pg_notify(v_channels[2], '');
      end if;
    end if;
  end if;
end;
$$;
comment on function ring_doorbell(text, timestamptz) is
  'Private: notify a worker that sleeps and wants a job of this queue due at that time.';
