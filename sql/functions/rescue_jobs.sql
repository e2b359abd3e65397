-- rescue_jobs: make the running jobs of dead workers pending again.
--
-- A worker is dead if it has been without its lock or heartbeat for the grace, which leaves it time to reconnect. The
-- grace counts from the first call that saw it so. Time alone never takes a job from a worker that holds its lock. A
-- claim whose worker is not registered counts as the claim of a dead worker. This waits for nothing: a later call takes
-- a job that another transaction holds, or a worker that another call is removing.
--
--   rescued  how many jobs became pending again
--   failed   how many jobs failed because of their crashes
--   watched  how many workers other than worker_id hold claims or poll now; if there are any, call again soon
--   job_ids  the jobs that were rescued or failed
--   dead     an array with an object for each dead worker that held jobs: worker_id, name, stood (the seconds since its
--            last claim, heartbeat or registration), and the keys of told in give_back_claims
create or replace function rescue_jobs(grace interval default '2 seconds', worker_id integer default null,
                                       out rescued integer, out failed integer, out watched integer, out job_ids text[],
                                       out dead jsonb)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_live   constant integer[] := array(select live_workers());
  v_known  integer[];
  v_dead   integer;
  v_worker jsonb;
  v_given  record;
begin
  rescued := 0; failed := 0; dead := '[]';
  select count(*)
    from (select claims.worker_id from claims
          union
          select doorbell.worker_id from doorbell where is_held('polling', doorbell.worker_id)) as busy
   where busy.worker_id is distinct from rescue_jobs.worker_id
    into watched;
  v_known := array(select workers.id from workers union select claims.worker_id from claims);
  insert into suspects (worker_id, seen_at)
  select missing.id, clock_timestamp()
    from unnest(v_known) as missing (id)
   where missing.id <> all (v_live)
     and missing.id not in (select suspects.worker_id from suspects);
  delete from suspects
   where suspects.ctid = any (array(
           select suspects.ctid
             from suspects
            where suspects.worker_id = any (v_live) or suspects.worker_id <> all (v_known)
              for update skip locked));
  for v_dead in
    select suspects.worker_id
      from suspects
     group by suspects.worker_id
    having min(suspects.seen_at) <= clock_timestamp() - rescue_jobs.grace
     order by suspects.worker_id
  loop
    select jsonb_build_object(
             'worker_id', v_dead, 'name', min(workers.name),
             'stood', round(extract(epoch from clock_timestamp() - greatest(
                        max(workers.heartbeat_at), max(workers.started_at), max(claims.claimed_at))), 3))
      from claims
      left join workers on workers.id = claims.worker_id
     where claims.worker_id = v_dead
      into v_worker;
    -- This transaction holds the worker's lock to its end, so that the worker, if it comes back, gets a new id.
    if pg_try_advisory_xact_lock(lock_class('alive'), v_dead) and give_away_worker(v_dead) then
      v_given := give_back_claims(v_dead, '{}', 'crashed', v_worker ->> 'name');
      rescued := rescued + v_given.rescued;
      failed  := failed + v_given.failed;
      job_ids := job_ids || v_given.job_ids;
      dead    := dead || case when v_given.job_ids is not null then v_worker || v_given.told else '[]' end;
    end if;
  end loop;
end;
$$;
comment on function rescue_jobs(interval, integer) is
  'Make the running jobs of dead workers pending again; a worker is dead if it has been without its lock for the grace.';
