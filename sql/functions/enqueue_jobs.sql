-- enqueue_jobs: add many jobs in one round trip and return their ids in the given order.
--
-- It adds all jobs or none. Every array must be as long as types, or null. A null array or element means the default.
--
-- A job with a unique key may end in a job that exists already. See add_jobs, which also returns which of the two
-- happened. unique_while, unique_for, on_conflict and debounce_ceiling apply to every job that has a key.
create or replace function enqueue_jobs(types text[], datas jsonb[] default null, priorities integer[] default null,
                                        execute_ats timestamptz[] default null, max_retries integer[] default null,
                                        queues text[] default null, job_ids text[] default null,
                                        unique_keys text[] default null, unique_while text default null,
                                        unique_for interval default null, on_conflict text default null,
                                        debounce_ceiling interval default null, expires_ats timestamptz[] default null)
  returns setof text
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  if num_nonnulls(enqueue_jobs.unique_keys, enqueue_jobs.unique_while, enqueue_jobs.unique_for, enqueue_jobs.on_conflict,
                  enqueue_jobs.debounce_ceiling) > 0 then
    return query
    select added.id
      from add_jobs(enqueue_jobs.types, enqueue_jobs.datas, enqueue_jobs.priorities, enqueue_jobs.execute_ats,
                    enqueue_jobs.max_retries, enqueue_jobs.queues, enqueue_jobs.job_ids, enqueue_jobs.unique_keys,
                    enqueue_jobs.unique_while, enqueue_jobs.unique_for, enqueue_jobs.on_conflict,
                    enqueue_jobs.debounce_ceiling, enqueue_jobs.expires_ats) as added;
    return;
  elsif cardinality(enqueue_jobs.types) <> any (array[
       cardinality(enqueue_jobs.datas), cardinality(enqueue_jobs.priorities), cardinality(enqueue_jobs.execute_ats),
       cardinality(enqueue_jobs.max_retries), cardinality(enqueue_jobs.queues), cardinality(enqueue_jobs.job_ids),
       cardinality(enqueue_jobs.expires_ats)])
     or array_position(enqueue_jobs.types, null) is not null then
    raise exception using errcode = 'JQ001',
      message = 'types: the arrays differ in length, or a type is null',
      hint    = 'Make each array as long as types, or null to use the default for all jobs. Every job needs a type.';
  elsif 0 > any (enqueue_jobs.max_retries) then
    raise exception using errcode = 'JQ001',
      message = 'max_retries: an element is negative',
      hint    = 'Use 0 or more; 0 allows a single try.';
  elsif enqueue_jobs.expires_ats is not null then
    perform check_new_job('', '{}', 0, given.execute_at, 0, '', null, null, null, null, null, given.at)
       from unnest(enqueue_jobs.expires_ats, enqueue_jobs.execute_ats) as given (at, execute_at);
  end if;
  return query
  insert into jobs (id, queue, type, data, priority, max_retries, execute_at, expires_at)
  select coalesce(given.id, new_job_id()), coalesce(given.queue, 'default'), given.type, coalesce(given.data, '{}'),
         coalesce(given.priority, 5), coalesce(given.max_retries, 3), given.execute_at, given.expires_at
    from unnest(enqueue_jobs.types, enqueue_jobs.datas, enqueue_jobs.priorities, enqueue_jobs.execute_ats,
                enqueue_jobs.max_retries, enqueue_jobs.queues, enqueue_jobs.job_ids, enqueue_jobs.expires_ats)
      as given (type, data, priority, execute_at, max_retries, queue, id, expires_at)
  returning jobs.id;
end;
$$;
comment on function enqueue_jobs(text[], jsonb[], integer[], timestamptz[], integer[], text[], text[], text[], text, interval, text, interval, timestamptz[]) is
  'Add many jobs in one round trip; returns their ids in the given order.';
