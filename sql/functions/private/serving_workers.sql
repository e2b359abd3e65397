-- serving_workers: return the live workers that serve a queue, and what is known of each.
--
--   left_types  the types that it leaves to others
--   waits       whether it waits for jobs of the queue; false if it has no room. A worker that sends heartbeats holds no
--               keys (see set_worker_state), so it may be waiting.
--   jobs        how many jobs it holds
create or replace function serving_workers(queue text)
  returns table (id integer, left_types text[], waits boolean, jobs bigint)
  language plpgsql
  volatile
  set search_path from current
as $$
#variable_conflict use_column
declare
  v_alive   constant integer[] := array(select live_workers());
  v_waiting constant integer[] := array(select live_workers('asleep') union select live_workers('polling'));
begin
  return query
  select workers.id, workers.left_types,
         workers.heartbeat_at is not null
         or workers.id = any (v_waiting)
            and exists (select from doorbell
                         where doorbell.worker_id = workers.id
                           and (doorbell.queues is null or serving_workers.queue = any (doorbell.queues))),
         (select count(*)
            from claims
           cross join lateral unnest(claims.job_ids) as held (id)
           cross join lateral (
             select from jobs
              where jobs.id = held.id and jobs.status = 'running' and jobs.claim_id = claims.id
             offset 0) as job
           where claims.worker_id = workers.id)
    from workers
   where workers.id = any (v_alive)
     and (workers.queues is null or serving_workers.queue = any (workers.queues));
end;
$$;
comment on function serving_workers(text) is 'Private: return the live workers that serve a queue, and what is known of each.';
