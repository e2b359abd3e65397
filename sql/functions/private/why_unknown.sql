-- why_unknown: say why there is no job with this id; for why_job.
--
-- The id may belong to a schedule, or to a tick of one, or be a unique key: add_job returns the id of the job that has
-- the key, and stores no other. An uncommitted enqueue cannot be seen.
create or replace function why_unknown(id text)
  returns text
  language sql
  volatile
  set search_path from current
as $$
  select coalesce(
    (select format('There is no job %L; the schedule %L ', why_unknown.id, schedules.id)
            || case when not schedules.enabled then 'is paused.'
                    when schedules.next_run is not null then format('runs next at %s.', moment_in_words(schedules.next_run))
                    when schedules.last_error is not null then format('has stopped: %s', split_part(schedules.last_error, E'\n', 1))
                    else 'has ended.' end
       from schedules
      where schedules.id = split_part(why_unknown.id, '@', 1) collate "C"),
    (select format('There is no job %L, but the job %L, which is %s, was the last to get this unique key.',
                   why_unknown.id, jobs.id, jobs.status)
       from unique_keys
       join jobs on jobs.id = unique_keys.job_id
      where unique_keys.key = why_unknown.id collate "C"),
    format('There is no job %L, or the transaction that adds it has not committed.', why_unknown.id));
$$;
comment on function why_unknown(text) is 'Private: say why there is no job with this id.';
