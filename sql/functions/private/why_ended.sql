-- why_ended: say how and when a job ended; for why_job.
create or replace function why_ended(job jobs)
  returns text
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_at constant text := moment_in_words(coalesce(why_ended.job.finished_at, why_ended.job.updated_at));
begin
  return case
    when why_ended.job.status = 'completed' then format('The job was completed at %s.', v_at)
    when why_ended.job.status = 'cancelled' and why_ended.job.error = 'expired' then
      format('The job expired before it could start, and was cancelled at %s.', v_at)
    when why_ended.job.status = 'cancelled' then format('The job was cancelled at %s%s.', v_at, ': ' || last_error(why_ended.job))
    else format('The job failed at %s, after start %s%s.', v_at, why_ended.job.attempts, ': ' || last_error(why_ended.job)) end;
end;
$$;
comment on function why_ended(jobs) is 'Private: say how and when a job ended.';
