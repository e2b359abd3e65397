-- misplaced_jobs: up to max_jobs pending jobs that have no place in line, and running ones that no claim holds.
--
-- No worker finds them.  Such rows come in while triggers are off (session_replication_role, pg_restore
-- --disable-triggers), in a restore of the table jobs alone, and by changes to the other tables by hand.  repair_jobs
-- takes them up.  A scan of jobs, until max_jobs are found.  version: of the row that was looked at, for repair_jobs.
create or replace function misplaced_jobs(max_jobs integer default 1000)
  returns table (id text, status text, version tid)
  language plpgsql
  stable
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = on
  set enable_nestloop = off  -- by a hash, however few the planner expects
  set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
  if coalesce(misplaced_jobs.max_jobs, 0) < 1 then
    raise exception using errcode = 'JQ001', hint = 'Give 1 or more.',
      message = format('max_jobs: %s is not a number of jobs', coalesce(misplaced_jobs.max_jobs::text, 'null'));
  end if;
  return query
  select jobs.id, jobs.status::text, jobs.ctid
    from jobs
   where jobs.status in ('pending', 'running')
     -- A place counts in the job's own queue and lane, because a claim drops it elsewhere.
     and not exists (
           select from (select 'pending' as status, ready.job_id as id, ready.queue, ready.lane as number,
                               null::timestamptz as execute_at
                          from ready
                        union all
                        select 'pending', scheduled.job_id, scheduled.queue, scheduled.lane, scheduled.execute_at
                          from scheduled
                        union all
                        select 'running', unnest(claims.job_ids) collate "C", '', claims.id, null
                          from claims) as known
            where known.status = jobs.status
              and known.id = jobs.id
              and known.queue = case jobs.status when 'pending' then jobs.queue else '' end
              and known.number = case jobs.status when 'pending' then - jobs.priority::bigint else coalesce(jobs.claim_id, 0) end
              and (known.execute_at is null or known.execute_at = jobs.execute_at))
   limit misplaced_jobs.max_jobs;
end;
$$;
comment on function misplaced_jobs(integer) is
  'Pending jobs that have no place in line, and running ones that no claim holds: no worker finds them.';
