-- heartbeat_worker: say that a worker without a session lock is alive.
--
-- False: the worker was taken for dead and its jobs were given away; it must register
-- anew.
create or replace function heartbeat_worker(worker_id integer)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  update workers
     set heartbeat_at = statement_timestamp(),
         suspected_at = null
   where workers.id = heartbeat_worker.worker_id;
  return found;
end;
$$;
comment on function heartbeat_worker(integer) is
  'Say that a worker without a session lock is alive; false when its jobs were given away.';
