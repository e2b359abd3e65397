-- drop_orphans: remove orphaned places from the head of each queue (null: of every queue).
--
-- A place is an orphan when its job was deleted, cancelled, changed or postponed by
-- hand.  Dropping it loses nothing: whatever made the job claimable elsewhere gave it
-- a place there.  One whose job is merely not due goes (back) to scheduled.  Looks at
-- the first max_places of each queue, skips places that another transaction holds, and
-- returns how many it removed.
create or replace function drop_orphans(queues text[], max_places integer default 1000)
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
  v_dropped integer;
begin
  with orphan as materialized (
    select place.*
      from unnest(coalesce(drop_orphans.queues, array(select ready_queues()))) as asked (queue)
     cross join lateral (
       select ready.ctid as tid, ready.*
         from ready
        where ready.queue = asked.queue
        order by - ready.priority::bigint, ready.seq
        limit drop_orphans.max_places
          for update skip locked) as place
     where not is_claimable(place.job_id, place.queue, place.priority)
  ), postponed as (
    insert into scheduled (execute_at, queue, priority, job_id)
    select job.execute_at, orphan.queue, orphan.priority, orphan.job_id
      from orphan
     cross join lateral (
       select jobs.execute_at
         from jobs
        where jobs.id = orphan.job_id
          and jobs.status = 'pending'
          and jobs.execute_at > statement_timestamp()
       offset 0) as job
  )
  delete from ready
   where ready.ctid = any (array(select orphan.tid from orphan));
  get diagnostics v_dropped = row_count;
  return v_dropped;
end;
$$;
comment on function drop_orphans(text[], integer) is
  'Private: remove orphaned places from the head of each queue; returns how many.';
