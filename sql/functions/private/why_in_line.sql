-- why_in_line: say what a due job waits for that live workers would take; for why_pending.
create or replace function why_in_line(job jobs)
  returns text
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_ahead   constant record := places_ahead(why_in_line.job);
  v_jobs    constant bigint := v_ahead.higher + v_ahead.earlier;
  v_counted constant text   := case when v_ahead.more then '10,000+' else to_char(v_jobs, 'FM999,999') end;
  v_worker  record;
begin
  select count(*) as takers, coalesce(sum(serving.jobs), 0) as held,
         coalesce(bool_or(serving.waits), false) as some_wait, coalesce(bool_or(serving.jobs = 0), false) as some_idle
    from serving_workers(why_in_line.job.queue) as serving
   where why_in_line.job.type <> all (serving.left_types)
    into v_worker;
  return case
    when not v_ahead.placed then
      format('The job is due, but %s.', misplaced_in_words())
    when why_in_line.job.crashes > 0 and not v_worker.some_idle then
      format('Workers died while they held the job (crashes: %s), so a worker claims it only when it holds no other job, and %s',
             why_in_line.job.crashes, 'all workers that serve its queue hold jobs.')
    when not v_worker.some_wait then
      format('No worker that serves the queue %L is waiting for jobs (workers: %s, jobs that they hold: %s, jobs ahead of this one: %s).',
             why_in_line.job.queue, v_worker.takers, v_worker.held, v_counted)
    when v_jobs > 0 then
      format('%s ahead of it in the queue %L, %s of them of higher priority; live workers that serve the queue: %s.',
             case when v_jobs = 1 then '1 job is' else v_counted || ' jobs are' end, why_in_line.job.queue,
             case when v_ahead.higher = 0 then 'none' when v_ahead.earlier = 0 then 'all'
                  else to_char(v_ahead.higher, 'FM999,999') end, v_worker.takers)
    else
      format('Nothing keeps the job from starting: it is the next in the queue %L, and a worker that serves the queue waits for jobs.',
             why_in_line.job.queue)
    end;
end;
$$;
comment on function why_in_line(jobs) is 'Private: say what a due job waits for that live workers would take.';
