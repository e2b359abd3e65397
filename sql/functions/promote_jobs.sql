-- promote_jobs: move due jobs of these queues (null: all queues) from scheduled to ready, earliest first.
--
-- A place may also be the next run of a schedule, which adds its job then, see fire_schedules.
--
-- Returns how many it moved, at most max_jobs. It skips places that another transaction is moving. It does not read the
-- jobs themselves, because a place in ready is a hint that a claim checks. Each claim moves only the due jobs of its
-- own queues, so that a claim in a transaction that is left open hides no job of other queues.
create or replace function promote_jobs(max_jobs integer default 1000, queues text[] default null)
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
  v_now      constant timestamptz := clock_timestamp();
  v_promoted integer;
  v_fires    tid[];
begin
  with due as materialized (
    select scheduled.ctid as tid, scheduled.schedule_id is not null as fires
      from scheduled
     where scheduled.execute_at <= v_now
       and (promote_jobs.queues is null or scheduled.queue = any (promote_jobs.queues collate "C"))
     order by scheduled.execute_at, scheduled.seq
     limit promote_jobs.max_jobs
       for update skip locked
  ), moved as (
    delete from scheduled
     where scheduled.ctid = any (array(select due.tid from due where not due.fires))
    returning scheduled.*
  ), placed as (
    insert into ready (queue, lane, job_id)
    select moved.queue, moved.lane, moved.job_id
      from moved
     order by moved.execute_at, moved.seq
  )
  select count(*) filter (where not due.fires), array_agg(due.tid) filter (where due.fires)
    from due
    into v_promoted, v_fires;
  if v_fires is not null then
    v_promoted := v_promoted + fire_schedules(v_fires, v_now);
  end if;
  return v_promoted;
end;
$$;
comment on function promote_jobs(integer, text[]) is
  'Move due jobs from scheduled to ready, earliest first; returns how many it moved.';
