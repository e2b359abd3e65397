-- place_new_jobs: after an insert into jobs, give each pending job its place and notify workers that serve its queue.
--
-- It runs once for each statement, over all its rows, so that enqueue_job, a plain insert and COPY work in the same
-- way. It rejects a job that no worker could run; the statement then changes nothing.
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

  -- These are one statement, because each costs a single insert several microseconds.
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

  -- The cheapest condition comes first. They are separate, because a condition that contains a query is
  -- a good part of the cost of a single insert, even if its other parts decide.
  if pg_try_advisory_lock(lock_class('asleep'), 0) and pg_advisory_unlock(lock_class('asleep'), 0) then
    return null;  -- no worker sleeps or polls
  elsif is_held('polling', 0) then
    return null;  -- a worker that serves every queue polls
  elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    null;  -- an old snapshot may not show a worker that has just registered, so notify_workers notifies all
  elsif not exists (
       select from new_jobs
         join doorbell on doorbell.queues is null or new_jobs.queue = any (doorbell.queues)) then
    return null;  -- no worker serves these queues
  elsif not exists (
       select from new_jobs
        where not exists (
              select from doorbell
               where doorbell.worker_id = any (array(
                       select doorbell.worker_id
                         from doorbell
                        where is_held('polling', doorbell.worker_id) and not is_held('busy', doorbell.worker_id)))
                 and (doorbell.queues is null or new_jobs.queue = any (doorbell.queues)))) then
    return null;  -- workers that poll will find the jobs; notify_workers would see that too, at a far higher cost
  end if;
  -- If some workers leave types to others, each type is notified of separately.
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
  'Trigger: give each new pending job its place and notify workers that serve its queue.';
