-- place_new_jobs: after an insert into jobs, give each pending job its place in line
-- and wake a worker that wants one of them.
--
-- Runs once a statement, over all its rows, so that enqueue_job, a plain insert and
-- COPY all end here.  Rejects what no worker could run; the statement then changes
-- nothing.
create or replace function place_new_jobs()
  returns trigger
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  if current_setting('pgjobq.max_data_bytes', true) <> '' then
    perform reject_job(new_jobs.id, new_jobs.type, new_jobs.queue, new_jobs.status, new_jobs.data,
                       current_setting('pgjobq.max_data_bytes')::bigint)
       from new_jobs
      where octet_length(new_jobs.data::text) > current_setting('pgjobq.max_data_bytes')::bigint;
  end if;

  -- One statement, for each costs a single insert several microseconds.
  with later as (
    insert into scheduled (execute_at, queue, lane, job_id)
    select new_jobs.execute_at, new_jobs.queue, - new_jobs.priority::bigint, new_jobs.id
      from new_jobs
     where new_jobs.status = 'pending'
       and new_jobs.execute_at > v_now
  )
  insert into ready (queue, lane, job_id)
  select new_jobs.queue, - new_jobs.priority::bigint, new_jobs.id
    from new_jobs
   where case when '' not in (new_jobs.id, new_jobs.type, new_jobs.queue)
               and greatest(length(new_jobs.id), length(new_jobs.type), length(new_jobs.queue)) <= 255
               and new_jobs.status <> 'running'
               and jsonb_typeof(new_jobs.data) = 'object'
              then new_jobs.status = 'pending'
               and (new_jobs.execute_at is null or new_jobs.execute_at <= v_now)
              else reject_job(new_jobs.id, new_jobs.type, new_jobs.queue, new_jobs.status, new_jobs.data, null)
         end;

  -- Conditions of their own, each cheaper than the next: one that has a query in it costs a good
  -- part of a single insert even where another decides.
  if pg_try_advisory_lock(lock_class('asleep'), 0) and pg_advisory_unlock(lock_class('asleep'), 0) then
    return null;  -- no worker sleeps or polls
  elsif is_held('polling', 0) then
    return null;  -- one that serves every queue polls
  elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    null;  -- cannot see which worker has just registered: notify_workers notifies all
  elsif not exists (
       select from new_jobs
         join doorbell on doorbell.queues is null or new_jobs.queue = any (doorbell.queues)) then
    return null;  -- no worker wants these jobs
  elsif not exists (
       select from new_jobs
        where not exists (
              select from doorbell
               where doorbell.worker_id = any (array(
                       select doorbell.worker_id
                         from doorbell
                        where is_held('polling', doorbell.worker_id) and not is_held('busy', doorbell.worker_id)))
                 and (doorbell.queues is null or new_jobs.queue = any (doorbell.queues)))) then
    return null;  -- those that poll will see them: what notify_workers would look for, too, at a far higher price
  end if;
  -- Of each type apart, if there are workers that leave some to others.
  perform notify_workers(array[found.queue], found.due_at, types => nullif(array[found.type], '{null}'))
     from (select new_jobs.queue, min(coalesce(new_jobs.execute_at, '-infinity')) as due_at,
                  case when exists (select from workers where workers.left_types <> '{}') then new_jobs.type end as type
             from new_jobs
            where new_jobs.status = 'pending'
            group by 1, 3) as found;
  return null;
end;
$$;
comment on function place_new_jobs() is
  'Trigger: give each new pending job its place in line and wake a worker that wants it.';
