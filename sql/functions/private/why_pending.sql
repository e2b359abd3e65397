-- why_pending: say why a pending job has not started: the first of these reasons that holds; for why_job.
--
-- Each of the functions returns null if its reason does not hold. why_in_line always returns a sentence.
create or replace function why_pending(job jobs)
  returns text
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  return coalesce(
    case when why_pending.job.expires_at <= clock_timestamp() then
      format('The job expired at %s; a claim cancels it when its turn comes.', moment_in_words(why_pending.job.expires_at)) end,
    why_not_due(why_pending.job),
    why_paused('queue', why_pending.job.queue),
    why_paused('type', why_pending.job.type),
    'The row of the job is locked by ' || row_holder(why_pending.job.id) || ', so claims skip it.',
    why_unserved(why_pending.job),
    why_in_line(why_pending.job));
end;
$$;
comment on function why_pending(jobs) is 'Private: say why a pending job has not started.';
