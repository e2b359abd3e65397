-- watch_workers: do one round of a worker's maintenance: rescue jobs, and check for jobs that no worker has taken.
--
-- It also promotes jobs of every queue that have been due for a second, because a claim promotes only those of its own
-- queues, and must then walk past the others.
--
--   unanswered  workers that were notified a moment ago. If a job for this worker is still waiting, those of them that
--               are asleep are passed over: enqueues notify others first until they call this or set_worker_state.
--   known       the claims that the worker knows
--   pollers     the other workers that poll for its queues
--   waiting     whether a job for the worker may be waiting
--   unknown     how many claims in the worker's name it does not know; null: it is not registered any more
--
-- grace and the other results are those of rescue_jobs.
create or replace function watch_workers(worker_id integer, queues text[] default null, unanswered integer[] default '{}',
                                         grace interval default '2 seconds', known bigint[] default '{}',
                                         out rescued integer, out failed integer, out watched integer, out job_ids text[],
                                         out pollers integer[], out waiting boolean, out unknown integer, out dead jsonb)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  v_queues text[] collate "C" := coalesce(watch_workers.queues, array(select ready_queues()));
begin
  select rescue.rescued, rescue.failed, rescue.watched, rescue.job_ids, rescue.dead
    from rescue_jobs(watch_workers.grace, watch_workers.worker_id) as rescue
    into rescued, failed, watched, job_ids, dead;
  pollers := array(
    select doorbell.worker_id
      from doorbell
     where doorbell.worker_id is distinct from watch_workers.worker_id
       and (doorbell.queues is null or watch_workers.queues is null or doorbell.queues && watch_workers.queues)
       and is_held('polling', doorbell.worker_id));
  if exists (select from scheduled where scheduled.execute_at < clock_timestamp() - interval '1 s') then
    perform promote_jobs(5000);
  end if;
  if exists (select from pauses) then
    v_queues := (without_paused(v_queues, '{}', clock_timestamp())).queues;
    perform end_pauses();
  end if;
  waiting := (next_places(v_queues, -2147483649, 0, 1)).places is not null
             or exists (select from scheduled
                         where scheduled.execute_at <= clock_timestamp()
                           and (watch_workers.queues is null or scheduled.queue = any (v_queues)))
             or check_floors();  -- it deleted a floor that may have hidden a job
  unknown := (select (select count(*) from claims
                        where claims.worker_id = workers.id and claims.id <> all (watch_workers.known))
               from workers
              where workers.id = watch_workers.worker_id);
  delete from doorbell  -- rows that a transaction held when their workers were removed
   where doorbell.ctid = any (array(
           select bell.ctid
             from doorbell as bell
            where not exists (select from workers where workers.id = bell.worker_id)
              for update skip locked));
  update doorbell
     set passed_over = doorbell.worker_id <> watch_workers.worker_id
   where doorbell.ctid = any (array(
           select bell.ctid
             from doorbell as bell
            where case when bell.worker_id = watch_workers.worker_id then bell.passed_over
                       else waiting and not bell.passed_over and bell.worker_id = any (watch_workers.unanswered)
                            and is_held('asleep', bell.worker_id) end
              for no key update skip locked));
end;
$$;
comment on function watch_workers(integer, text[], integer[], interval, bigint[]) is
  'Do one round of a worker''s maintenance: call rescue_jobs, and check for jobs that no worker has taken.';
