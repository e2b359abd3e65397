-- wait_for_job: wait until a job has ended, at most for the timeout, and return it; for psql and scripts.
--
-- It looks 2 ms after the call, and then after pauses that double up to a quarter of a second. Returns no row if the job
-- does not exist, or is deleted meanwhile. Raises JQ011 if the time is over. Enqueue the job in a transaction of its own
-- first: no worker sees it before that commits. While this waits, vacuum can remove no rows that were deleted since, as
-- with every statement that takes long. A program should use wait_for_jobs.
create or replace function wait_for_job(id text, timeout interval default '10 seconds')
  returns setof jobs
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_until constant timestamptz := clock_timestamp() + wait_for_job.timeout;
  v_pause double precision     := 0.002;  -- seconds
begin
  if wait_for_job.timeout is null or wait_for_job.timeout < interval '0' then
    raise exception using errcode = 'JQ001',
      message = format('timeout: %s is not a time to wait', coalesce(wait_for_job.timeout::text, 'null')),
      hint    = 'Use an interval of 0 or more.';
  elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception using errcode = 'JQ001',
      message = format('timeout: a transaction in %s cannot see a job end', current_setting('transaction_isolation')),
      hint    = 'Call wait_for_job in read committed.';
  end if;
  loop
    perform from ended_jobs(array[wait_for_job.id]);
    if found then
      return query select jobs.* from jobs where jobs.id = wait_for_job.id collate "C";
      return;
    elsif clock_timestamp() >= v_until then
      raise exception using errcode = 'JQ011',
        message = format('timeout: the job %s has not ended within %s', wait_for_job.id, wait_for_job.timeout),
        hint    = 'Call wait_for_job again, or look with get_job.';
    end if;
    perform pg_sleep(least(v_pause, extract(epoch from v_until - clock_timestamp())));
    v_pause := least(v_pause * 2, 0.25);
  end loop;
end;
$$;
comment on function wait_for_job(text, interval) is
  'Wait until a job has ended, at most for the timeout, and return it; raises JQ011 if the time is over.';
