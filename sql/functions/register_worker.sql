-- register_worker: enter a worker and take its lock; returns its id.
--
-- The lock belongs to the session and falls with it: call this on a connection that
-- lives as long as the worker.  heartbeat: true for a worker that cannot keep a session
-- (behind a transaction pooler); it must call heartbeat_worker instead.  After a lost
-- connection, give the old worker_id: it is kept, unless its jobs were given away
-- meanwhile; then the worker is a new one.  An error, JQ007, while another session still
-- holds the old lock: the server has not noticed yet that the old connection is gone.
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
        hint    = 'Try again: the server ends a lost connection within seconds.  Or register as a new worker.';
    -- A rescue that was under way may have given it away before this session had the lock.
    elsif exists (select from workers where workers.id = register_worker.worker_id) then
      return register_worker.worker_id;
    end if;
    perform hold_keys(register_worker.worker_id, '{}');
  end if;
  for attempt in 1..100 loop
    insert into workers (name, queues, heartbeat_at)
    values (register_worker.name, register_worker.queues,
            case when register_worker.heartbeat then clock_timestamp() end)
    on conflict on constraint workers_pkey do nothing  -- the ids have gone round
    returning workers.id into v_id;
    continue when v_id is null;
    if register_worker.heartbeat or hold_keys(v_id, '{alive}') then
      return v_id;
    end if;
    delete from workers where workers.id = v_id;
  end loop;
  raise exception using errcode = 'JQ007',
    message = 'worker_id: another session holds the locks of workers that do not exist',
    hint    = 'See in pg_locks which one it is, and end it.';
end;
$$;
comment on function register_worker(text, text[], boolean, integer) is
  'Enter a worker and take its session lock; returns its id.';
