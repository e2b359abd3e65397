-- heartbeat_worker: record that a worker without a session lock is alive.
--
-- Returns false if the worker was found dead and its jobs were rescued; it must register again. If another transaction
-- holds the worker's row, such as a rescue that is removing the worker, it does not wait and returns true; the next
-- call then shows the outcome.
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
  'Record that a worker without a session lock is alive; returns false if its jobs were rescued.';
