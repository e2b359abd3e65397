-- heartbeat_worker: say that a worker without a session lock is alive.
--
-- False: the worker was taken for dead and its jobs were given away; it must register
-- again.  Waits for no transaction that holds its row, such as a rescue that is giving it
-- away just now: then the next call tells.
create or replace function heartbeat_worker(worker_id integer)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  update workers
     set heartbeat_at = clock_timestamp()
   where workers.ctid = any (array(
           select workers.ctid from workers where workers.id = heartbeat_worker.worker_id for no key update skip locked));
  return found or exists (select from workers where workers.id = heartbeat_worker.worker_id);
end;
$$;
comment on function heartbeat_worker(integer) is
  'Say that a worker without a session lock is alive; false when its jobs were given away.';
