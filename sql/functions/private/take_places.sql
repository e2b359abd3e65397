-- take_places: lock the next max_jobs jobs of these queues (null: all queues) and delete their places.
--
-- Returns the jobs in the order in which they should run. take_line walks a single queue; further jobs are found in
-- rounds over all queues. Jobs that are held, and jobs of except_types, keep their places. If alone is true, a suspect
-- (a job whose worker crashed) is taken by itself; if alone is false, suspects are left. A walk ends early after
-- 100,000 places that stay. It also ends after 2,000 that were dropped, so that these stay dropped if a later claim is
-- cut off. The setting pgjobq.skipped says what was skipped (see claim_jobs).
create or replace function take_places(queues text[], max_jobs integer, except_types text[], alone boolean, now timestamptz)
  returns text[]
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_queues  text[]   := take_places.queues;
  v_ids     text[]   := '{}';
  v_wanted  integer  := take_places.max_jobs;
  v_reach   bigint   := take_places.max_jobs;  -- how many places a round reads
  v_at      bigint[] := '{-2147483649,0}';     -- where the round begins
  v_deep    bigint   := 1;                     -- how far into each queue it reads
  v_stay    bigint   := 0; v_dropped bigint := 0; v_skipped text := '';
  v_line    record; v_free record; v_rest record; v_jobs integer;
begin
  if v_queues is null then
    v_queues := array(select ready_queues());
  elsif cardinality(v_queues) > 1 then
    v_queues := array(select distinct unnest(v_queues));
  end if;
  for v_round in 1 .. 2147483647 loop
    if v_round = 1 and cardinality(v_queues) = 1 then
      v_free := take_line(v_queues[1], v_wanted, take_places.except_types, take_places.alone, take_places.now);
    else
      v_line := next_places(v_queues, v_at[1], v_at[2], v_reach, v_deep);
      v_at := v_line.reached;
      v_deep := case when cardinality(v_line.places) < v_reach then v_deep * 2 else v_deep end;
      select array_agg(free.id order by free.nth) as ids, array_agg(free.tid order by free.nth) as places,
             case when count(*) < v_wanted then array(select unnest(v_line.places) except select unnest(array_agg(free.tid))) end as rest,
             array_position(array_agg(free.crashes > 0 order by free.nth), true) as suspect
        from (select job.id, job.crashes, given.tid, given.nth
                from unnest(v_line.places) with ordinality as given (tid, nth)
               -- The places are locked one by one, in order. Other claims then skip them without reading their jobs.
               cross join lateral (select ready.* from ready where ready.ctid = given.tid for update skip locked) as place
               cross join lateral (
                 select jobs.id, jobs.crashes from jobs
                  where jobs.id = place.job_id
                    and jobs.status = 'pending' and jobs.queue = place.queue and jobs.priority = - place.lane
                    and (jobs.execute_at is null or jobs.execute_at <= take_places.now)
                    and (jobs.expires_at is null or jobs.expires_at > take_places.now)
                    and (jobs.crashes = 0 or take_places.alone is distinct from false)
                    and jobs.type <> all (take_places.except_types)
                    for no key update skip locked) as job
               limit v_wanted) as free
        into v_free;
    end if;
    if v_free.ids is not null then
      v_jobs := cardinality(v_free.ids);
      if take_places.alone and v_free.suspect is not null then
        v_jobs := greatest(v_free.suspect - 1, (v_ids = '{}')::integer);
        v_at := null; v_skipped := 'more';
      end if;
      delete from ready where ready.ctid = any (v_free.places[1:v_jobs]);
      v_ids := v_ids || v_free.ids[1:v_jobs]; v_wanted := v_wanted - v_jobs;
    end if;
    if cardinality(v_free.rest) > 0 and v_skipped <> 'more' then
      v_rest := drop_orphans(v_free.rest, take_places.except_types);
      v_dropped := v_dropped + v_rest.dropped; v_stay := v_stay + v_rest.stay;
      v_skipped := coalesce(v_rest.skipped, v_skipped);
      v_reach := least(greatest(v_reach * 2, 64), 4096);
    end if;
    exit when v_at is null or v_wanted = 0 or v_stay >= 100000 or v_dropped >= 2000;
  end loop;
  v_skipped := case when v_wanted = 0 and v_skipped <> 'suspect' then '' when v_dropped >= 2000 then 'more' else v_skipped end;
  if v_skipped <> coalesce(current_setting('pgjobq.skipped', true), '') then
    perform set_config('pgjobq.skipped', v_skipped, true);
  end if;
  return v_ids;
end;
$$;
comment on function take_places(text[], integer, text[], boolean, timestamptz) is
  'Private: lock the next jobs of these queues and delete their places.';
