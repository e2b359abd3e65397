-- failed_jobs: find failed jobs for retry_jobs, the oldest first, after a position in the order of created_at and id.
--
-- It locks nothing. A filter that is null lets every job pass. The walk reads the failed jobs alone.
create or replace function failed_jobs(queue text, type text, fingerprint text, failed_since timestamptz,
                                       failed_until timestamptz, max_jobs integer, after_created_at timestamptz,
                                       after_id text, out created_at timestamptz, out id text)
  returns setof record
  language plpgsql
  stable
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set enable_sort = off
as $$
begin
  return query
  select jobs.created_at, jobs.id
    from jobs
   where (jobs.created_at, jobs.id)
         > (coalesce(failed_jobs.after_created_at, '-infinity'), coalesce(failed_jobs.after_id collate "C", ''))
     and jobs.failed_at is not null
     and jobs.status = 'failed'
     and (failed_jobs.queue is null or jobs.queue = failed_jobs.queue collate "C")
     and (failed_jobs.type is null or jobs.type = failed_jobs.type collate "C")
     and (failed_jobs.failed_since is null or jobs.failed_at >= failed_jobs.failed_since)
     and (failed_jobs.failed_until is null or jobs.failed_at < failed_jobs.failed_until)
     and (failed_jobs.fingerprint is null
          or coalesce(jobs.fingerprint, fingerprint(jobs.type, jobs.error)) = failed_jobs.fingerprint collate "C")
   order by jobs.created_at, jobs.id
   limit failed_jobs.max_jobs;
end;
$$;
comment on function failed_jobs(text, text, text, timestamptz, timestamptz, integer, timestamptz, text) is
  'Private: find failed jobs for retry_jobs, the oldest first.';
