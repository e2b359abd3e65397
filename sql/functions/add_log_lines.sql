-- add_log_lines: keep what handlers have logged; return how many lines were kept.
--
-- The arrays are parallel, an element a line. A line is kept if its start is the job's last one: the claim still belongs
-- to the job, or something other than the worker has ended the start, and the job was not started again. seqs number the
-- lines of a start. A line whose number is there already is left out, so it is safe to repeat a call. It raises 55P03 if
-- another transaction has just added one of the lines.
create or replace function add_log_lines(ids text[], claim_ids bigint[], attempts integer[], seqs integer[],
                                         logged_ats timestamptz[], levels text[], loggers text[], lines text[])
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_hashjoin = off
  set enable_mergejoin = off
  set lock_timeout = '100ms'  -- the worker's settles must not wait for it
as $$
declare
  v_rows bigint;
begin
  insert into log_lines (job_id, claim_id, seq, attempt, logged_at, level, logger, line)
  select job.id, given.claim_id, given.seq, given.attempt, given.logged_at, given.level, given.logger, given.line
    from unnest(add_log_lines.ids, add_log_lines.claim_ids, add_log_lines.attempts, add_log_lines.seqs,
                add_log_lines.logged_ats, add_log_lines.levels, add_log_lines.loggers, add_log_lines.lines)
           as given (id, claim_id, attempt, seq, logged_at, level, logger, line)
   cross join lateral (
     select jobs.id
       from jobs
      where jobs.id = given.id collate "C"
        and (jobs.claim_id = given.claim_id or (jobs.claim_id is null and jobs.attempts = given.attempt))
     offset 0) as job
  on conflict do nothing;
  get diagnostics v_rows = row_count;
  return v_rows;
end;
$$;
comment on function add_log_lines(text[], bigint[], integer[], integer[], timestamptz[], text[], text[], text[]) is
  'Keep what handlers have logged, if their starts are the last ones of their jobs; returns how many lines were kept.';
