-- roles: who may do what.  All rights go through functions and views; no role but the
-- owner has a right on a table.  Roles belong to the whole cluster and outlive a schema.
--
--   pgjobq_enqueue  may enqueue, and sees nothing
--   pgjobq_work     may also claim, settle, rescue, prune and listen: what a worker needs
--   pgjobq_read     may look at jobs, workers and statistics
--   pgjobq_admin    all of these, and may retry and cancel by hand
do $$
begin
  if not exists (select from pg_roles where rolname = 'pgjobq_enqueue') then create role pgjobq_enqueue nologin; end if;
  if not exists (select from pg_roles where rolname = 'pgjobq_work')    then create role pgjobq_work    nologin; end if;
  if not exists (select from pg_roles where rolname = 'pgjobq_read')    then create role pgjobq_read    nologin; end if;
  if not exists (select from pg_roles where rolname = 'pgjobq_admin')   then create role pgjobq_admin   nologin; end if;
exception
  when insufficient_privilege then
    raise notice 'roles: no right to create pgjobq_enqueue, pgjobq_work, pgjobq_read, pgjobq_admin. Have an administrator create them, then migrate again.';
  when duplicate_object or unique_violation then
    null;  -- another installer, in another database, was quicker
end;
$$;

revoke execute on function
  new_job_id, enqueue_job, enqueue_jobs,
  claim_jobs, complete_jobs, fail_job, retry_job, release_jobs, cancel_job, promote_jobs, rescue_jobs, prune_jobs,
  register_worker, retire_worker, heartbeat_worker, lost_jobs, arm_doorbell, disarm_doorbell, open_enqueues,
  rings_waiting, is_polled, next_due,
  call_watch, call_worker, quiet_doorbell, mark_busy, release_unknown_jobs, get_job, list_jobs, count_jobs, live_workers,
  take_places, is_claimable, was_settled, drop_orphans, ready_queues, willing_queues, give_away_jobs, place_new_jobs,
  place_changed_job, reject_job, ring_doorbell, sleepers, is_held, hold_key, holds_key, watch_key, enter_doorbell,
  advance_floors, claim_segments, share_claim, lane_floor, check_floors, open_places, export_jobs, import_jobs
  from public;

do $$
begin
  if (select count(*) from pg_roles where rolname in ('pgjobq_enqueue', 'pgjobq_work', 'pgjobq_read', 'pgjobq_admin')) < 4 then
    return;
  end if;
  -- The one dynamic statement: grant names a schema, and cannot say "the current one".
  execute format('grant usage on schema %I to pgjobq_enqueue, pgjobq_work, pgjobq_read, pgjobq_admin', current_schema());

  grant execute on function new_job_id, enqueue_job, enqueue_jobs
     to pgjobq_enqueue, pgjobq_work, pgjobq_admin;
  grant execute on function
    claim_jobs, complete_jobs, fail_job, retry_job, release_jobs, promote_jobs, rescue_jobs, register_worker, retire_worker,
    heartbeat_worker, lost_jobs, release_unknown_jobs, arm_doorbell, quiet_doorbell, disarm_doorbell, mark_busy, open_enqueues,
    rings_waiting, is_polled, next_due, call_watch, call_worker, advance_floors, prune_jobs
     to pgjobq_work, pgjobq_admin;
  grant execute on function get_job, list_jobs, count_jobs, live_workers, next_due, export_jobs
     to pgjobq_read, pgjobq_work, pgjobq_admin;
  grant execute on function cancel_job, import_jobs
     to pgjobq_admin;
  grant select on schema_version, job_stats, worker_status
     to pgjobq_read, pgjobq_work, pgjobq_admin;
  -- Not one that somebody else has put there.
  if exists (select from pg_proc
              where pg_proc.oid = to_regprocedure('public.enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text)')
                and pg_has_role(pg_proc.proowner, 'usage')
                and obj_description(pg_proc.oid, 'pg_proc') like '%Calls the enqueue_job of pgjobq''s schema.') then
    grant execute on function public.enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text)
       to pgjobq_enqueue, pgjobq_work, pgjobq_admin;
  end if;
exception when insufficient_privilege then
  raise notice 'roles: rights were not granted: %', sqlerrm;
end;
$$;
