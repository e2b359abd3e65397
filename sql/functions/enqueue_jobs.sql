-- enqueue_jobs: add many jobs in one round trip and return their ids in the given order.
--
-- It adds all jobs or none. Every array must be as long as types, or null. A null array or element means the default.
create or replace function enqueue_jobs(types text[], datas jsonb[] default null, priorities integer[] default null,
                                        execute_ats timestamptz[] default null, max_retries integer[] default null,
                                        queues text[] default null, job_ids text[] default null)
  returns setof text
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  if cardinality(enqueue_jobs.types) <> any (array[
       cardinality(enqueue_jobs.datas), cardinality(enqueue_jobs.priorities), cardinality(enqueue_jobs.execute_ats),
       cardinality(enqueue_jobs.max_retries), cardinality(enqueue_jobs.queues), cardinality(enqueue_jobs.job_ids)])
     or array_position(enqueue_jobs.types, null) is not null then
    raise exception using errcode = 'JQ001',
      message = 'types: the arrays differ in length, or a type is null',
      hint    = 'Make each array as long as types, or null to use the default for all jobs. Every job needs a type.';
  elsif 0 > any (enqueue_jobs.max_retries) then
    raise exception using errcode = 'JQ001',
      message = 'max_retries: an element is negative',
      hint    = 'Use 0 or more; 0 allows a single try.';
  end if;
  return query
  insert into jobs (id, queue, type, data, priority, max_retries, execute_at)
  select coalesce(given.id, new_job_id()), coalesce(given.queue, 'default'), given.type, coalesce(given.data, '{}'),
         coalesce(given.priority, 5), coalesce(given.max_retries, 3), given.execute_at
    from unnest(enqueue_jobs.types, enqueue_jobs.datas, enqueue_jobs.priorities, enqueue_jobs.execute_ats,
                enqueue_jobs.max_retries, enqueue_jobs.queues, enqueue_jobs.job_ids)
      as given (type, data, priority, execute_at, max_retries, queue, id)
  returning jobs.id;
end;
$$;
comment on function enqueue_jobs(text[], jsonb[], integer[], timestamptz[], integer[], text[], text[]) is
  'Add many jobs in one round trip; returns their ids in the given order.';
