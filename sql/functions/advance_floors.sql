-- advance_floors: move the floors of busy lanes up; returns how many moved.
--
-- Under an old snapshot (a dump, a forgotten transaction) vacuum can remove nothing, and each
-- claim would walk all the places taken since.  So each busy lane, a queue and a priority, has a
-- floor: a seq below which no place is, or can appear, and claims begin there.
--
-- A seq F is safe when it was read from the sequence at some moment, and every transaction that
-- held RowExclusiveLock on ready at that moment has ended: an insert takes that lock before
-- nextval.  A floor moves to F, or to the lowest place of its lane that is visible, if that is less.
-- A place whose taking is not committed is visible; a job put back in line gets a new seq.
-- Nothing depends on a floor being there.  Once a minute each is checked from zero on all the same.
create or replace function advance_floors()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
as $$
declare
  v_next  bigint;
  v_open  text[];
  v_safe  bigint;
  v_moved integer;
begin
  -- An older snapshot would not see the places that a floor must not pass.
  if current_setting('transaction_isolation') <> 'read committed'
     or not pg_try_advisory_xact_lock('floors'::regclass::oid::integer, 0) then
    return 0;
  end if;
  -- First the sequence, then who may hold a number below it.
  select place_seq.last_value + 1 from place_seq into v_next;
  v_open := open_places();
  update horizon
     set safe      = horizon.candidate,
         candidate = v_next,
         open      = v_open
   where not horizon.open && v_open;
  select horizon.safe from horizon into v_safe;

  with busy as materialized (
    select distinct job.queue, job.priority
      from (select claims.job_ids from claims limit 50) as claim
     cross join lateral unnest(array[claim.job_ids[1], claim.job_ids[cardinality(claim.job_ids)]]) as held (id)
     cross join lateral (select jobs.queue, jobs.priority from jobs where jobs.id = held.id offset 0) as job
  )
  insert into floors (queue, priority, seq, moved_at)
  select busy.queue, busy.priority, lane_floor(busy.queue, busy.priority, coalesce(floors.seq, 0), v_safe), statement_timestamp()
    from busy
    left join floors on (floors.queue, floors.priority) = (busy.queue, busy.priority)
   where v_safe >= coalesce(floors.seq, 0) + 1000
  on conflict on constraint floors_pkey
  do update set seq = excluded.seq, moved_at = excluded.moved_at;
  get diagnostics v_moved = row_count;

  if (select horizon.checked_at < statement_timestamp() - interval '1 minute' from horizon) then
    perform check_floors();
  end if;
  return v_moved;
end;
$$;
comment on function advance_floors() is 'Move the floors of busy lanes up, so that claims pass over what was taken.';
