-- claim_jobs: hand up to max_jobs due jobs to one worker and mark them as running.
--
-- Returns the jobs of these queues (null: all queues) by priority, highest first, then in the order in which they
-- became due. attempts counts this start. claim_id names it, and every settle must pass it. Raises JQ006 if there is a
-- job and the worker is not registered.
--
-- It skips jobs that other transactions hold, and never waits. except_types: leave jobs of these types to other
-- workers. alone: whether the worker holds no other job. If true, a suspect is claimed by itself; if false, suspects
-- are skipped; if null, they are claimed like other jobs. Until the transaction ends, the setting pgjobq.skipped says
-- what was skipped: 'suspect' (claim again when alone), 'held' jobs (claim again soon), or 'more' than one claim can
-- read (claim again at once). 'held' and 'more' appear only if fewer than max_jobs jobs are returned.
create or replace function claim_jobs(worker_id integer, queues text[] default null, max_jobs integer default 1,
                                      except_types text[] default '{}', alone boolean default null)
  returns table (claim_id bigint, id text, queue text, type text, data jsonb, priority integer, attempts integer,
                 max_retries integer, execute_at timestamptz, error text, created_at timestamptz,
                 started_at timestamptz, crashes integer)
  language plpgsql  -- keeps its plan; before PostgreSQL 18, a sql function is planned on every call
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set enable_memoize = off  -- each place and each job is read only once
  set enable_nestloop = off  -- join the jobs with their order by a hash, even if the planner expects few
as $$
#variable_conflict use_column
declare
  v_now    constant timestamptz := clock_timestamp();
  v_queues text[] collate "C" := claim_jobs.queues;
  v_except text[] collate "C" := coalesce(claim_jobs.except_types, '{}');
  v_ids    text[] collate "C"; v_claim bigint; v_rows integer;
  v_due    boolean; v_paused boolean; v_held boolean;
begin
  if coalesce(claim_jobs.max_jobs, 0) < 1 then
    raise exception using errcode = 'JQ001', hint = 'Use 1 or more.',
      message = format('max_jobs: %s is not a positive number', coalesce(claim_jobs.max_jobs::text, 'null'));
  end if;
  select exists (select from scheduled
                  where scheduled.execute_at <= v_now and (v_queues is null or scheduled.queue = any (v_queues))),
         case when v_queues is null then exists (select from pauses) else exists (select from pauses where pauses.kind = 'type')
           or exists (select from pauses where pauses.kind = 'queue' and pauses.name = any (v_queues)) end
    into v_due, v_paused;
  if v_due then v_held := promote_jobs(1000, v_queues) = 0; end if;
  if v_paused then select * from without_paused(v_queues, v_except, v_now) into v_queues, v_except; end if;
  loop
    v_ids := take_places(v_queues, claim_jobs.max_jobs, v_except, claim_jobs.alone, v_now);
    exit when v_ids <> '{}' or not check_floors();  -- it deleted a floor that hid jobs
  end loop;
  if v_ids = '{}' then perform set_config('pgjobq.skipped', 'held', true) where v_held; return; end if;
  -- The lock stops a rescue from removing the worker until this claim is visible. If a rescue holds it, this fails.
  insert into claims (worker_id, id, claimed_at, job_ids)
  select worker.id, nextval('claim_seq'), v_now, v_ids
    from (select workers.id from workers where workers.id = claim_jobs.worker_id for key share skip locked) as worker
  returning claims.id into v_claim;
  if v_claim is null then
    raise exception using errcode = 'JQ006', hint = 'Call register_worker first. A worker whose jobs were rescued must register again.',
      message = format('worker_id: worker %s is not registered', coalesce(claim_jobs.worker_id::text, 'null'));
  end if;
  return query
  with claimed as (
    update jobs
       set status = 'running', attempts = jobs.attempts + 1, worker_id = claim_jobs.worker_id, claim_id = v_claim,
           started_at = v_now, updated_at = v_now
     where jobs.id = any (v_ids)
    returning jobs.*
  ), line as (select taken.id, min(taken.nth) as nth from unnest(v_ids) with ordinality as taken (id, nth) group by taken.id)
  select v_claim, claimed.id, claimed.queue, claimed.type, claimed.data, claimed.priority, claimed.attempts::integer,
         claimed.max_retries::integer, claimed.execute_at::timestamptz, claimed.error, claimed.created_at,
         claimed.started_at, claimed.crashes
    from claimed join line on line.id = claimed.id
   order by line.nth;
  get diagnostics v_rows = row_count;
  if v_rows < cardinality(v_ids) then perform set_config('pgjobq.skipped', 'more', true); end if;  -- a job had two places
end;
$$;
comment on function claim_jobs(integer, text[], integer, text[], boolean) is
  'Hand up to max_jobs due jobs to one worker and mark them as running; returns no row if there are none.';
