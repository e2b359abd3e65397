-- add_jobs: add many jobs, as enqueue_jobs does; return the id in which each ended and the outcome, in the given order.
--
-- See add_job for the outcome and the options of unique keys, which apply to every job that has a key. All keys are
-- locked in their order before any job is added, so that two calls with the same keys do not deadlock. Of two jobs with
-- the same key, the second finds the key taken by the first.
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
#variable_conflict use_column
declare
  v_ids constant text[] := array(select coalesce(given.id, new_job_id())
                                   from unnest(add_jobs.types, add_jobs.job_ids) with ordinality as given (type, id, n)
                                  order by given.n);
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
  perform check_new_job(given.type, '{}', coalesce(given.priority, 5), given.execute_at,
                        coalesce(given.max_retries, 3), '', given.key,
                        case when given.keyed then add_jobs.unique_while end,
                        case when given.keyed then add_jobs.unique_for end,
                        case when given.keyed then add_jobs.on_conflict end,
                        case when given.keyed then add_jobs.debounce_ceiling end, given.expires_at)
     from (select each.*, each.key is not null or add_jobs.unique_keys is null as keyed
             from unnest(add_jobs.types, add_jobs.priorities, add_jobs.execute_ats, add_jobs.max_retries,
                         add_jobs.unique_keys, add_jobs.expires_ats)
               as each (type, priority, execute_at, max_retries, key, expires_at)) as given;
  for v in
    select distinct on (given.key collate "C") given.key, given.id
      from unnest(add_jobs.unique_keys, v_ids) with ordinality as given (key, id, nth)
     where given.key is not null
     order by given.key collate "C", given.nth
  loop
    perform hold_unique_key(v.key, v.id, false);
  end loop;
  for v in
    select given.type, coalesce(given.data, '{}') as data, coalesce(given.priority, 5) as priority, given.execute_at, given.id,
           coalesce(given.max_retries, 3) as max_retries, coalesce(given.queue, 'default') as queue, given.key, given.expires_at
      from unnest(add_jobs.types, add_jobs.datas, add_jobs.priorities, add_jobs.execute_ats, add_jobs.max_retries,
                  add_jobs.queues, v_ids, add_jobs.unique_keys, add_jobs.expires_ats) with ordinality
        as given (type, data, priority, execute_at, max_retries, queue, id, key, expires_at, nth)
     order by given.nth
  loop
    if v.key is null then
      return query
      select enqueue_job(v.type, v.data, v.priority, v.execute_at, v.max_retries, v.queue, v.id, expires_at => v.expires_at),
             'added';
    else
      return query
      select * from add_unique_job(v.type, v.data, v.priority, v.execute_at, v.max_retries, v.queue, v.id, v.key,
                                   add_jobs.unique_while, add_jobs.unique_for, add_jobs.on_conflict,
                                   add_jobs.debounce_ceiling, v.expires_at);
    end if;
  end loop;
end;
$$;
comment on function add_jobs(text[], jsonb[], integer[], timestamptz[], integer[], text[], text[], text[], text, interval, text, interval, timestamptz[]) is
  'Add many jobs; returns the id of the job in which each ended, and the outcome, in the given order.';
