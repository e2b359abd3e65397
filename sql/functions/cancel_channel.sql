-- cancel_channel: return the channel on which a worker hears that jobs which it runs were cancelled.
--
-- A worker listens on this channel, beside its own, until the last of its jobs has ended. The payload is empty: the worker
-- calls lost_jobs to find out which of its jobs it has lost. The channel depends on the worker's id alone, because a worker
-- that has never slept has no row in doorbell.
create or replace function cancel_channel(worker_id integer)
  returns text
  language sql
  stable
  security definer
  set search_path from current
as $$
  select format('pgjobq:cancel:%s:%s', lock_class('alive'), cancel_channel.worker_id);
$$;
comment on function cancel_channel(integer) is
  'Return the channel on which a worker hears that jobs which it runs were cancelled.';
