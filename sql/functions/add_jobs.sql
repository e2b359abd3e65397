-- add_jobs: add many jobs, as enqueue_jobs does; return for each, in the given order, the id of the job in which it ended,
-- and the outcome.
--
-- See add_job for the outcome and the options of unique keys. The options apply to every job that has a key. All keys are
-- locked in their order before any job is added, so that two calls with the same keys do not deadlock. Of two jobs with the
-- same key, the second finds the key taken by the first.
create or replace function add_jobs(types text[], datas jsonb[] default null, priorities integer[] default null,
                                    execute_ats timestamptz[] default null, max_retries integer[] default null,
                                    queues text[] default null, job_ids text[] default null, unique_keys text[] default null,
                                    unique_while text default null, unique_for interval default null,
                                    on_conflict text default null, debounce_ceiling interval default null,
                                    expires_ats timestamptz[] default null)
  returns table (id text, outcome text)
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
#variable_conflict use_column
declare
  v_ids constant text[] := array(select coalesce(given.id, new_job_id())
                                   from unnest(add_jobs.types, add_jobs.job_ids) with ordinality as given (type, id, nth)
                                  order by given.nth);
  v     record;
begin
  if num_nonnulls(add_jobs.unique_keys, add_jobs.unique_while, add_jobs.unique_for, add_jobs.on_conflict,
                  add_jobs.debounce_ceiling) = 0 then
    return query
    select added.id, 'added'
      from enqueue_jobs(add_jobs.types, add_jobs.datas, add_jobs.priorities, add_jobs.execute_ats, add_jobs.max_retries,
                        add_jobs.queues, add_jobs.job_ids, expires_ats => add_jobs.expires_ats) as added (id);
    return;
  elsif cardinality(add_jobs.types) <> any (array[
       cardinality(add_jobs.datas), cardinality(add_jobs.priorities), cardinality(add_jobs.execute_ats),
       cardinality(add_jobs.max_retries), cardinality(add_jobs.queues), cardinality(add_jobs.job_ids),
       cardinality(add_jobs.unique_keys), cardinality(add_jobs.expires_ats)]) then
    raise exception using errcode = 'JQ001',
      message = 'types: the arrays differ in length',
      hint    = 'Make each array as long as types, or null to use the default for all jobs.';
  end if;
  perform check_new_job('', '{}', 0, given.execute_at, 0, '', given.unique_key, add_jobs.unique_while,
                        add_jobs.unique_for, add_jobs.on_conflict, add_jobs.debounce_ceiling, null)
     from unnest(add_jobs.types, add_jobs.unique_keys, add_jobs.execute_ats) as given (type, unique_key, execute_at)
    where given.unique_key is not null or add_jobs.unique_keys is null;
  for v in
    select distinct on (given.key collate "C") given.key, given.id
      from unnest(add_jobs.unique_keys, v_ids) with ordinality as given (key, id, nth)
     where given.key is not null
     order by given.key collate "C", given.nth
  loop
    perform hold_unique_key(v.key, v.id, false);
  end loop;
  for v in
    select given.*
      from unnest(add_jobs.types, add_jobs.datas, add_jobs.priorities, add_jobs.execute_ats, add_jobs.max_retries,
                  add_jobs.queues, v_ids, add_jobs.unique_keys, add_jobs.expires_ats) with ordinality
        as given (type, data, priority, execute_at, max_retries, queue, id, key, expires_at, nth)
     order by given.nth
  loop
    return query
    select added.id, added.outcome
      from add_job(v.type, coalesce(v.data, '{}'), coalesce(v.priority, 5), v.execute_at, coalesce(v.max_retries, 3),
                   coalesce(v.queue, 'default'), v.id, v.key,
                   case when v.key is not null then add_jobs.unique_while end,
                   case when v.key is not null then add_jobs.unique_for end,
                   case when v.key is not null then add_jobs.on_conflict end,
                   case when v.key is not null then add_jobs.debounce_ceiling end, v.expires_at) as added;
  end loop;
end;
$$;
comment on function add_jobs(text[], jsonb[], integer[], timestamptz[], integer[], text[], text[], text[], text, interval, text, interval, timestamptz[]) is
  'Add many jobs; returns for each, in the given order, the id of the job in which it ended, and the outcome.';
