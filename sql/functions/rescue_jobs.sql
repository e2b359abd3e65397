-- rescue_jobs: put the jobs of dead workers back in line.
--
-- A worker is dead when it has been without its lock or heartbeat for the grace, counted
-- from the first call that saw it so: time to reconnect.  Time alone never takes a job
-- from a worker that holds its lock.  One caller works at a time; the others return at
-- once.  watched: how many other workers hold jobs or poll for them now, that is, whether to
-- come again soon.
create or replace function rescue_jobs(grace interval default '2 seconds', worker_id integer default null,
                                       out rescued integer, out failed integer, out watched integer)
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_live   integer[];
  v_worker integer;
  v_gone   record;
begin
  rescued := 0;
  failed  := 0;
  select count(*)
    from (select claims.worker_id from claims
          union
          select doorbell.worker_id from doorbell where is_held('ready', doorbell.worker_id)) as busy
   where busy.worker_id is distinct from rescue_jobs.worker_id
    into watched;
  if not pg_try_advisory_xact_lock('claims'::regclass::oid::integer, 0) then
    return;
  end if;
  v_live := array(select live_workers());
  update workers
     set suspected_at = case when workers.suspected_at is null then clock_timestamp() end
   where (workers.suspected_at is null) <> (workers.id = any (v_live));
  for v_worker in
    select workers.id
      from workers
     where workers.suspected_at <= clock_timestamp() - rescue_jobs.grace
     order by workers.id
       for update skip locked
  loop
    -- Its lock, taken until commit: a worker that comes back now waits, and learns that
    -- its jobs were given away.
    if pg_try_advisory_xact_lock('workers'::regclass::oid::integer, v_worker) then
      v_gone  := give_away_jobs(v_worker);
      rescued := rescued + v_gone.rescued;
      failed  := failed + v_gone.failed;
    end if;
  end loop;
end;
$$;
comment on function rescue_jobs(interval, integer) is
  'Put the jobs of dead workers back in line; a worker is dead when it has been without its lock for the grace.';
