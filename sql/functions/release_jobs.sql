-- release_jobs: give back claimed jobs that were not run, or not to their end.
--
-- The running jobs become pending again, due at once or after the delay, and their starts are subtracted from attempts.
-- ids and claim_ids are parallel. Returns the ids whose start is over; those jobs are not changed. It is safe to repeat
-- a call. Raises 55P03 (lock_not_available), and changes nothing, if another transaction holds a row for half a second.
--
--   ran  The handlers have run, but not to their end, for example because the worker stops. Each try is recorded in attempts.
create or replace function release_jobs(ids text[], claim_ids bigint[], delay_seconds double precision default 0,
                                        ran boolean default false)
  returns setof text
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_nestloop = off
  set enable_mergejoin = off
  set lock_timeout = '500ms'  -- one row that another transaction holds must not delay the others
as $$
#variable_conflict use_column
declare
  v_rows integer;
  v_ran  text[];
begin
  if release_jobs.ran then
    v_ran := array(
      select jobs.id
        from unnest(release_jobs.ids collate "C", release_jobs.claim_ids) as start (id, claim_id)
        join jobs on jobs.id = start.id and jobs.claim_id = start.claim_id and jobs.status = 'running'
       where jobs.id = any (release_jobs.ids collate "C")
         for no key update of jobs);
    perform note_attempt(jobs, 'released', null) from jobs where jobs.id = any (v_ran collate "C");
  end if;
  update jobs
     set status     = 'pending',
         attempts   = jobs.attempts - 1,
         execute_at = case when release_jobs.delay_seconds > 0
                           then clock_timestamp() + make_interval(secs => release_jobs.delay_seconds)
                           else jobs.execute_at
                      end,
         updated_at = clock_timestamp()
    from unnest(release_jobs.ids collate "C", release_jobs.claim_ids) as start (id, claim_id)
   where jobs.id = any (release_jobs.ids collate "C")
     and jobs.id = start.id
     and jobs.claim_id = start.claim_id
     and jobs.status = 'running';
  get diagnostics v_rows = row_count;
  if v_rows < cardinality(release_jobs.ids) then
    return query
    select start.id
      from unnest(release_jobs.ids collate "C", release_jobs.claim_ids) as start (id, claim_id)
     where not was_settled(start.id, start.claim_id, 'pending');
  end if;
end;
$$;
comment on function release_jobs(text[], bigint[], double precision, boolean) is
  'Give back claimed jobs that were not run, or not to their end; returns the ids whose start is over.';
