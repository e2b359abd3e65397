-- note_attempt: record a try that did not succeed.
--
-- job is the job's row as it was while the try ran. worker is the worker's name; null: look it up. error of a cancelled
-- try is the reason.
create or replace function note_attempt(job jobs, outcome text, error text, worker text default null)
  returns void
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  insert into attempts (job_id, attempt, worker_id, worker, started_at, outcome, error_class, error)
  values ((note_attempt.job).id, (note_attempt.job).attempts, (note_attempt.job).worker_id,
          coalesce(note_attempt.worker,
                   (select workers.name from workers where workers.id = (note_attempt.job).worker_id)),
          (note_attempt.job).started_at, note_attempt.outcome,
          case when note_attempt.outcome <> 'cancelled' then error_class(note_attempt.error) end, note_attempt.error);
end;
$$;
comment on function note_attempt(jobs, text, text, text) is 'Private: record a try that did not succeed.';
