-- list_jobs: return jobs of one status and one queue (null: of all), newest first.
--
-- It is cheap on a table with millions of finished jobs. Failed jobs have their own index. In a table of more than
-- 10,000 pages, running jobs are found through claims, and pending jobs through ready and scheduled, if there are at
-- most 10,000; misplaced jobs (see misplaced_jobs) are not found then. In all other cases it walks the index on
-- created_at and stops after max_jobs (null: no limit).
create or replace function list_jobs(status text default null, max_jobs integer default null,
                                     queue text default null)
  returns setof jobs
  language plpgsql
  stable
  security definer
  set search_path from current
as $$
declare
  v_few   constant integer := 10000;
  -- The size up to which job_stats counts the whole table.
  v_large constant boolean := pg_relation_size('jobs') > 10000 * current_setting('block_size')::bigint;
  v_ids   text[] collate "C";
begin
  if not coalesce(list_jobs.status = any ('{pending,running,completed,failed,cancelled}'), true) then
    raise exception using errcode = 'JQ001',
      message = format('status: %L is not a status', list_jobs.status),
      hint    = 'Use pending, running, completed, failed or cancelled, or null for all.';
  elsif list_jobs.max_jobs < 0 then
    raise exception using errcode = 'JQ001',
      message = format('max_jobs: %s is negative', list_jobs.max_jobs),
      hint    = 'Use 0 or more, or null for no limit.';
  end if;
  if list_jobs.status = 'failed' then
    return query
    select jobs.*
      from jobs
     where jobs.failed_at is not null
       and jobs.status = 'failed'
       and (list_jobs.queue is null or jobs.queue = list_jobs.queue collate "C")
     order by jobs.created_at desc, jobs.id desc
     limit list_jobs.max_jobs;
    return;
  elsif list_jobs.status = 'running' and v_large then
    v_ids := array(select unnest(claims.job_ids) from claims);
  elsif list_jobs.status = 'pending' and v_large then
    v_ids := array(select waiting.job_id
                     from (select ready.job_id from ready union all select scheduled.job_id from scheduled) as waiting
                    limit v_few + 1);
  end if;
  if cardinality(v_ids) <= v_few then
    return query
    select jobs.*
      from jobs
     where jobs.id = any (v_ids)
       and jobs.status = list_jobs.status
       and (list_jobs.queue is null or jobs.queue = list_jobs.queue collate "C")
     order by jobs.created_at desc, jobs.id desc
     limit list_jobs.max_jobs;
  else
    return query
    select jobs.*
      from jobs
     where (list_jobs.status is null or jobs.status = list_jobs.status)
       and (list_jobs.queue is null or jobs.queue = list_jobs.queue collate "C")
     order by jobs.created_at desc, jobs.id desc
     limit list_jobs.max_jobs;
  end if;
end;
$$;
comment on function list_jobs(text, integer, text) is
  'Return jobs of one status and one queue, or of all, newest first.';
