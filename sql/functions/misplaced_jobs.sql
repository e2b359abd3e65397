-- misplaced_jobs: return pending jobs that have no place in line, and running jobs that no claim holds.
--
-- No worker finds such jobs. They appear when rows are inserted while triggers are off (session_replication_role,
-- pg_restore --disable-triggers), when the table jobs alone is restored, and when the other tables are changed
-- manually. repair_jobs repairs them. This scans jobs until it has found max_jobs. version is the ctid of the row that
-- was read, for repair_jobs.
create or replace function misplaced_jobs(max_jobs integer default 1000)
  returns table (id text, status text, version tid)
  language plpgsql
  stable
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = on
  set enable_nestloop = off  -- compare by a hash, even if the planner expects few rows
  set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
  if coalesce(misplaced_jobs.max_jobs, 0) < 1 then
    raise exception using errcode = 'JQ001', hint = 'Use 1 or more.',
      message = format('max_jobs: %s is not a positive number', coalesce(misplaced_jobs.max_jobs::text, 'null'));
  end if;
  return query
  select jobs.id, jobs.status::text, jobs.ctid
    from jobs
   where jobs.status in ('pending', 'running')
     -- Only a place in the job's own queue and lane counts, because a claim deletes any other.
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
  'Return pending jobs that have no place in line, and running jobs that no claim holds; no worker finds them.';
