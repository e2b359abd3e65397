-- give_away_worker: remove a worker, so that it can claim no more jobs; return false if it is claiming right now.
--
-- It waits for nothing.
create or replace function give_away_worker(worker_id integer)
  returns boolean
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  -- A claim locks the worker's row until it commits.
  perform from workers where workers.id = give_away_worker.worker_id for update skip locked;
  if not found and exists (select from workers where workers.id = give_away_worker.worker_id) then
    return false;
  end if;
  delete from workers where workers.id = give_away_worker.worker_id;
  -- This also deletes rows that a transaction held when their workers were removed.
  delete from doorbell
   where doorbell.ctid = any (array(
           select doorbell.ctid
             from doorbell
            where not exists (select from workers where workers.id = doorbell.worker_id)
              for update skip locked));
  return true;
end;
$$;
comment on function give_away_worker(integer) is
  'Private: remove a worker, so that it can claim no more jobs; returns false if it is claiming right now.';
