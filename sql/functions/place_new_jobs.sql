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
  v_limit  constant bigint  := nullif(current_setting('pgjobq.max_data_bytes', true), '');
  -- Cannot see who has just registered.
  v_serial constant boolean := current_setting('transaction_isolation') in ('repeatable read', 'serializable');
  v_free   boolean;
begin
  -- One statement, for each costs a single insert several microseconds.
  with later as (
    insert into scheduled (execute_at, queue, priority, job_id)
    select new_jobs.execute_at, new_jobs.queue, new_jobs.priority, new_jobs.id
      from new_jobs
     where new_jobs.status = 'pending'
       and new_jobs.execute_at > statement_timestamp()
  )
  insert into ready (queue, priority, job_id)
  select new_jobs.queue, new_jobs.priority, new_jobs.id
    from new_jobs
   where case when length(new_jobs.id) between 1 and 255
               and length(new_jobs.type) between 1 and 255
               and length(new_jobs.queue) between 1 and 255
               and new_jobs.status <> 'running'
               and jsonb_typeof(new_jobs.data) = 'object'
               and (v_limit is null or octet_length(new_jobs.data::text) <= v_limit)
              then new_jobs.status = 'pending'
               and (new_jobs.execute_at is null or new_jobs.execute_at <= statement_timestamp())
              else reject_job(new_jobs.id, new_jobs.type, new_jobs.queue, new_jobs.status, new_jobs.data, v_limit)
         end;

  -- Free when nobody sleeps or polls: then there is nobody to ring for.
  v_free := pg_try_advisory_lock('doorbell'::regclass::oid::integer, 0)
        and pg_advisory_unlock('doorbell'::regclass::oid::integer, 0);
  if v_serial or not v_free and exists (
       select from new_jobs
        where exists (select from doorbell where doorbell.queues is null or new_jobs.queue = any (doorbell.queues))
          -- The same that ring_doorbell looks for first, and far cheaper while workers poll.
          and not exists (
              select from doorbell
               where doorbell.worker_id = any (array(
                       select doorbell.worker_id
                         from doorbell
                        where is_held('ready', doorbell.worker_id) and not is_held('claims', doorbell.worker_id)))
                 and (doorbell.queues is null or new_jobs.queue = any (doorbell.queues))))
  then
    perform ring_doorbell(new_jobs.queue, min(coalesce(new_jobs.execute_at, '-infinity')))
       from new_jobs
      where new_jobs.status = 'pending'
      group by new_jobs.queue;
  end if;
  return null;
end;
$$;
comment on function place_new_jobs() is
  'Trigger: give each new pending job its place in line and wake a worker that wants it.';
