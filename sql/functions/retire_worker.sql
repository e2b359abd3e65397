-- retire_worker: remove a worker that stops.
--
-- The jobs that it still holds become pending again at once, and their starts count as tries. Call it on the connection
-- that registered the worker, because its last statement releases the worker's lock.
create or replace function retire_worker(worker_id integer)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
declare
  v_name constant text := (select workers.name from workers where workers.id = retire_worker.worker_id);
begin
  perform set_worker_state(retire_worker.worker_id, 'awake');
  if give_away_worker(retire_worker.worker_id) then
    perform give_back_claims(retire_worker.worker_id, '{}', 'left', v_name);
  end if;
  perform hold_keys(retire_worker.worker_id, '{}');
end;
$$;
comment on function retire_worker(integer) is
  'Remove a worker that stops; the jobs that it still holds become pending again.';
