-- retire_worker: a worker leaves in good order.
--
-- Jobs that it still holds go back in line at once, their starts counted.  Call it on the
-- connection that registered it: its lock is let go with the last statement.
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
begin
  perform set_worker_state(retire_worker.worker_id, 'awake');
  if give_away_worker(retire_worker.worker_id) then
    perform give_back_claims(retire_worker.worker_id, '{}', 'left');
  end if;
  perform hold_keys(retire_worker.worker_id, '{}');
end;
$$;
comment on function retire_worker(integer) is
  'A worker leaves in good order: jobs that it still holds go back in line.';
