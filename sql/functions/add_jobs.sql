-- add_jobs: add many jobs, as enqueue_jobs does; return the id in which each ended and the outcome, in the given order.
--
-- See add_job for the outcome and the options of unique keys, which apply to every job that has a key. All keys are
-- locked in their order before any job is added, so that two calls with the same keys do not deadlock. A key that is
-- given twice is taken by the first job. Jobs whose keys exist already come last, one by one.
create or replace function add_jobs(types text[], datas jsonb[] default null, priorities integer[] default null,
                                    execute_ats timestamptz[] default null, max_retries integer[] default null,
                                    queues text[] default null, job_ids text[] default null,
                                    unique_keys text[] default null, unique_while text default null,
                                    unique_for interval default null, on_conflict text default null,
                                    debounce_ceiling interval default null, expires_ats timestamptz[] default null)
  returns table (id text, outcome text)
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_ids text[]    := array(select coalesce(given.id, new_job_id())
                             from unnest(add_jobs.types, add_jobs.job_ids) as given (type, id));
  v_how text[]    := array_fill('added'::text, array[cardinality(v_ids)]);
  v_new boolean[] := array_fill(false, array[cardinality(v_ids)]);  -- it is the first job with its key
  v     record; v_held record;
begin
  if num_nonnulls(add_jobs.unique_keys, add_jobs.unique_while, add_jobs.unique_for, add_jobs.on_conflict,
                  add_jobs.debounce_ceiling) = 0 then
    return query
    select added.id, 'added'
      from enqueue_jobs(add_jobs.types, add_jobs.datas, add_jobs.priorities, add_jobs.execute_ats, add_jobs.max_retries,
                        add_jobs.queues, add_jobs.job_ids, expires_ats => add_jobs.expires_ats) as added (id);
    return;
  elsif cardinality(add_jobs.types) <> any (array[cardinality(add_jobs.datas), cardinality(add_jobs.priorities),
       cardinality(add_jobs.execute_ats), cardinality(add_jobs.max_retries), cardinality(add_jobs.queues),
       cardinality(add_jobs.job_ids), cardinality(add_jobs.unique_keys), cardinality(add_jobs.expires_ats)])
     or array_position(add_jobs.types, null) is not null then
    raise exception using errcode = 'JQ001', message = 'types: the arrays differ in length, or a type is null',
      hint = 'Make each array as long as types, or null to use the default for all jobs. Every job needs a type.';
  end if;
  perform check_new_job('', '{}', 0, given.execute_at, 0, '', null, null, null, null, null, given.at)
     from unnest(add_jobs.expires_ats, add_jobs.execute_ats) as given (at, execute_at);
  perform check_new_job('', '{}', 0, given.execute_at, coalesce(given.max_retries, 0), '', given.key, add_jobs.unique_while,
                        add_jobs.unique_for, add_jobs.on_conflict, add_jobs.debounce_ceiling, null)
     from unnest(add_jobs.types, add_jobs.unique_keys, add_jobs.execute_ats, add_jobs.max_retries)
       as given (type, key, execute_at, max_retries)
    where given.key is not null or add_jobs.unique_keys is null;
  for v in
    select distinct on (given.key collate "C") given.*
      from unnest(add_jobs.unique_keys, v_ids) with ordinality as given (key, id, nth)
     where given.key is not null
     order by given.key collate "C", given.nth
  loop
    v_held := hold_unique_key(v.key, v.id, false);
    v_new[v.nth] := v_held.is_new;
  end loop;
  insert into jobs (id, queue, type, data, priority, max_retries, execute_at, unique_key, expires_at)
  select given.id, coalesce(given.queue, 'default'), given.type, coalesce(given.data, '{}'), coalesce(given.priority, 5),
         coalesce(given.max_retries, 3), given.execute_at, given.key, given.expires_at
    from unnest(v_ids, v_new, add_jobs.types, add_jobs.datas, add_jobs.priorities, add_jobs.execute_ats,
                add_jobs.max_retries, add_jobs.queues, add_jobs.unique_keys, add_jobs.expires_ats) with ordinality
      as given (id, is_new, type, data, priority, execute_at, max_retries, queue, key, expires_at, nth)
   where given.key is null or given.is_new order by given.nth;
  for v in
    select given.nth, added.*
      from unnest(v_ids, v_new, add_jobs.types, add_jobs.datas, add_jobs.priorities, add_jobs.execute_ats,
                  add_jobs.max_retries, add_jobs.queues, add_jobs.unique_keys, add_jobs.expires_ats) with ordinality
        as given (id, is_new, type, data, priority, execute_at, max_retries, queue, key, expires_at, nth)
     cross join lateral add_unique_job(
             given.type, coalesce(given.data, '{}'), coalesce(given.priority, 5), given.execute_at,
             coalesce(given.max_retries, 3), coalesce(given.queue, 'default'), given.id, given.key, add_jobs.unique_while,
             add_jobs.unique_for, add_jobs.on_conflict, add_jobs.debounce_ceiling, given.expires_at) as added
     where given.key is not null and not given.is_new
  loop
    v_ids[v.nth] := v.id;
    v_how[v.nth] := v.outcome;
  end loop;
  return query select * from unnest(v_ids, v_how);
end;
$$;
comment on function add_jobs(text[], jsonb[], integer[], timestamptz[], integer[], text[], text[], text[], text, interval, text, interval, timestamptz[]) is
  'Add many jobs; returns the id of the job in which each ended, and the outcome, in the given order.';
