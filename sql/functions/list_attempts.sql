-- list_attempts: return the tries of a job that did not succeed, oldest first.
--
-- outcome is 'raised', 'timed out', 'worker died', 'cancelled' or 'released'. attempt is the job's attempts during the
-- try. A number may come twice, because a crash and a release are subtracted from attempts. Rows from before the job was
-- created are left out, because they belong to a deleted job of the same id.
create or replace function list_attempts(id text, out attempt integer, out worker text, out worker_id integer,
                                        out started_at timestamptz, out ended_at timestamptz, out outcome text,
                                        out error_class text, out error text)
  returns setof record
  language sql
  stable
  security definer
  set search_path from current
as $$
  select attempts.attempt, attempts.worker, attempts.worker_id, attempts.started_at, attempts.ended_at, attempts.outcome,
         attempts.error_class, attempts.error
    from jobs
    join attempts on attempts.job_id = jobs.id and attempts.ended_at >= jobs.created_at
   where jobs.id = list_attempts.id collate "C"
   order by attempts.ended_at;
$$;
comment on function list_attempts(text) is 'Return the tries of a job that did not succeed, oldest first.';
