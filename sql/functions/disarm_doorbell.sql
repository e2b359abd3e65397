-- disarm_doorbell: a worker is awake and looks for jobs by itself; do not notify it.
create or replace function disarm_doorbell(worker_id integer)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  delete from doorbell where doorbell.worker_id = disarm_doorbell.worker_id;
end;
$$;
comment on function disarm_doorbell(integer) is
  'A worker is awake and looks for jobs by itself: do not notify it.';
