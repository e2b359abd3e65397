-- register_worker: enter a worker and take its lock; returns its id.
--
-- The lock belongs to the session and falls with it: call this on a connection that
-- lives as long as the worker.  heartbeat: true for a worker that cannot keep a session
-- (behind a transaction pooler); it must call heartbeat_worker instead.  After a lost
-- connection, give the old worker_id: it is kept, unless its jobs were given away
-- meanwhile; then the worker is a new one.
create or replace function register_worker(name text, queues text[] default null, heartbeat boolean default false,
                                           worker_id integer default null)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_id integer := register_worker.worker_id;
begin
  if v_id is not null then
    -- Waits for a rescue of this worker that is under way, and so sees its outcome.
    perform pg_advisory_lock('workers'::regclass::oid::integer, v_id);
    update workers set suspected_at = null where workers.id = v_id;
    if found then
      return v_id;
    end if;
    perform pg_advisory_unlock('workers'::regclass::oid::integer, v_id);
  end if;
  insert into workers (name, queues, heartbeat_at)
  values (register_worker.name, register_worker.queues,
          case when register_worker.heartbeat then statement_timestamp() end)
  returning workers.id into v_id;
  if not register_worker.heartbeat then
    perform pg_advisory_lock('workers'::regclass::oid::integer, v_id);
  end if;
  return v_id;
end;
$$;
comment on function register_worker(text, text[], boolean, integer) is
  'Enter a worker and take its session lock; returns its id.';
