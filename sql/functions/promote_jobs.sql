-- promote_jobs: move due jobs of these queues (null: all queues) from scheduled to ready, earliest first.
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
  'Move due jobs from scheduled to ready, earliest first; returns how many it moved.';
