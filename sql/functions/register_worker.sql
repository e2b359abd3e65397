-- register_worker: register a worker, take its lock, and return its id.
--
-- The lock belongs to the session and is released when the session ends, so call this on a connection that lives as
-- long as the worker. Raises JQ007 if another session still holds the lock of worker_id, because the server has not
-- noticed yet that the worker's old connection is gone.
--
--   heartbeat  true: the worker cannot keep a session (behind a transaction pooler), and calls heartbeat_worker instead
--   worker_id  the previous id of a worker that has lost its connection. The worker keeps it, unless its jobs were
--              rescued meanwhile; then it gets a new id.
create or replace function register_worker(name text, queues text[] default null, heartbeat boolean default false,
                                           worker_id integer default null)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_id integer;
begin
  if exists (select from workers where workers.id = register_worker.worker_id) then
    if not hold_keys(register_worker.worker_id, '{alive}') then
      raise exception using errcode = 'JQ007',
        message = format('worker_id: another session holds the lock of worker %s', register_worker.worker_id),
        hint    = 'Try again in a few seconds, when the server has ended the lost connection, or register as a new worker.';
    -- A rescue may have removed the worker before this session got the lock.
    elsif exists (select from workers where workers.id = register_worker.worker_id) then
      return register_worker.worker_id;
    end if;
    perform hold_keys(register_worker.worker_id, '{}');
  end if;
  for attempt in 1..100 loop
    insert into workers (name, queues, heartbeat_at)
    values (register_worker.name, register_worker.queues,
            case when register_worker.heartbeat then clock_timestamp() end)
    on conflict on constraint workers_pkey do nothing  -- the ids wrap around
    returning workers.id into v_id;
    continue when v_id is null;
    if register_worker.heartbeat or hold_keys(v_id, '{alive}') then
      return v_id;
    end if;
    delete from workers where workers.id = v_id;
  end loop;
  raise exception using errcode = 'JQ007',
    message = 'worker_id: another session holds the locks of workers that do not exist',
    hint    = 'Find that session in pg_locks and end it.';
end;
$$;
comment on function register_worker(text, text[], boolean, integer) is
  'Register a worker, take its session lock, and return its id.';
