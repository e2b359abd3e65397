-- promote_jobs: move due jobs of these queues (null: of every queue) from scheduled to ready, earliest first.
--
-- Returns how many moved, at most max_jobs; 0 when none is due.  Places that another
-- transaction is moving are skipped.  The jobs themselves are not read: a place in ready
-- is a hint, checked when claimed.  A claim moves only what is due in its own queues, so
-- that one in a transaction that is left open hides no job of other queues.
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
begin
  with due as materialized (
    select scheduled.ctid as tid
      from scheduled
     where scheduled.execute_at <= v_now
       and (promote_jobs.queues is null or scheduled.queue = any (promote_jobs.queues collate "C"))
     order by scheduled.execute_at, scheduled.seq
     limit promote_jobs.max_jobs
       for update skip locked
  ), moved as (
    delete from scheduled
     where scheduled.ctid = any (array(select due.tid from due))
    returning scheduled.*
  )
  insert into ready (queue, lane, job_id)
  select moved.queue, moved.lane, moved.job_id
    from moved
   order by moved.execute_at, moved.seq;
  get diagnostics v_promoted = row_count;
  return v_promoted;
end;
$$;
comment on function promote_jobs(integer, text[]) is
  'Move due jobs from scheduled to ready, earliest first; returns how many.';
