-- prune_jobs: delete one batch of jobs that finished longer ago than older_than, oldest first.
--
-- It walks the jobs in the order of created_at, up to older_than ago, because no job finishes before it is created. It
-- skips jobs that another transaction holds. Only one caller can prune at a time, and pruned is null for the others,
-- but a transaction that is left open excludes them for no longer than a minute. What belongs to the jobs is deleted with
-- them. Each call also deletes some rows of jobs that were deleted in another way, and the actions that are older than
-- the setting pgjobq.keep_actions (90 days).
--
--   queues     delete only jobs of these queues; null: of all queues
--   pruned     how many jobs were deleted; fewer than max_jobs means that no more are left
--   reached_*  where the batch ended. To delete the next batch, call the function in a new transaction and pass these as
--              after_created_at and after_id, so that it does not walk the same dead index entries and other jobs again.
create or replace function prune_jobs(older_than interval default '7 days',
                                      statuses text[] default '{completed,cancelled}',
                                      max_jobs integer default 1000,
                                      after_created_at timestamptz default null, after_id text default null,
                                      queues text[] default null,
                                      out pruned integer, out reached_created_at timestamptz, out reached_id text)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set enable_sort = off
as $$
#variable_conflict use_column
declare
  v_until timestamptz; v_ids text[];
begin
  if not coalesce(prune_jobs.statuses <@ '{completed,failed,cancelled}', false) then
    raise exception using errcode = 'JQ001',
      message = format('statuses: %s is not a list of final statuses', coalesce(prune_jobs.statuses::text, 'null')),
      hint    = 'Use one or more of completed, failed and cancelled.';
  elsif coalesce(prune_jobs.max_jobs, 0) < 1 then
    raise exception using errcode = 'JQ001',
      message = format('max_jobs: %s is not a positive number', coalesce(prune_jobs.max_jobs::text, 'null')),
      hint    = 'Use 1 or more.';
  elsif coalesce(prune_jobs.older_than < interval '0', true) then
    raise exception using errcode = 'JQ001',
      message = format('older_than: %s is not an age', coalesce(prune_jobs.older_than::text, 'null')),
      hint    = 'Use an interval of 0 or more.';
  elsif not pg_try_advisory_xact_lock(lock_class('pruning'), (extract(epoch from clock_timestamp()) / 60)::integer) then
    return;
  end if;
  v_until := clock_timestamp() - prune_jobs.older_than;
  with old as materialized (
    select jobs.created_at, jobs.id
      from jobs
     where (jobs.created_at, jobs.id)
           > (coalesce(prune_jobs.after_created_at, '-infinity'), coalesce(prune_jobs.after_id collate "C", ''))
       and jobs.created_at <= v_until
       and jobs.finished_at <= v_until
       and jobs.status = any (prune_jobs.statuses)
       and (prune_jobs.queues is null or jobs.queue = any (prune_jobs.queues collate "C"))
     order by jobs.created_at, jobs.id
     limit prune_jobs.max_jobs
       for update skip locked
  ), gone as (
    delete from jobs
     where jobs.id = any (array(select old.id from old))
  )
  select count(*) over (), old.created_at, old.id, array(select old.id from old)
    from old
   order by old.created_at desc, old.id desc
   limit 1
    into prune_jobs.pruned, prune_jobs.reached_created_at, prune_jobs.reached_id, v_ids;
  prune_jobs.pruned := coalesce(prune_jobs.pruned, 0);
  if prune_jobs.pruned < prune_jobs.max_jobs then
    prune_jobs.reached_created_at := v_until;
    prune_jobs.reached_id         := '';
  end if;
  perform forget_jobs(v_ids);
  perform sweep_orphans(prune_jobs.max_jobs);
end;
$$;
comment on function prune_jobs(interval, text[], integer, timestamptz, text, text[]) is
  'Delete one batch of jobs that finished longer ago than older_than; returns how many, and where the next batch begins.';
