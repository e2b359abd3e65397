-- why_not_due: say when a pending job is due, and whether it waits for another try; null: it is due. For why_pending.
create or replace function why_not_due(job jobs)
  returns text
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_at constant text := moment_in_words(why_not_due.job.execute_at);
begin
  if why_not_due.job.execute_at is null or why_not_due.job.execute_at <= clock_timestamp() then
    return null;
  elsif not (places_ahead(why_not_due.job)).placed then
    return format('The job is due at %s, but %s.', v_at, misplaced_in_words());
  elsif why_not_due.job.attempts > 0 and last_error(why_not_due.job) is not null then
    return format('The job waits until %s for start %s, after the error: %s.', v_at, why_not_due.job.attempts + 1,
                  last_error(why_not_due.job));
  end if;
  return format('The job is due at %s.', v_at);
end;
$$;
comment on function why_not_due(jobs) is 'Private: say when a pending job is due; null: it is due.';
