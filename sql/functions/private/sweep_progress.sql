-- sweep_progress: delete progress whose jobs no longer exist, because they were deleted manually; return how many.
--
-- prune_jobs deletes the progress of the jobs that it deletes. A call examines some pages, beginning where the last call
-- stopped. It skips rows that another transaction has locked, and waits for nothing.
create or replace function sweep_progress(max_rows integer)
  returns bigint
  language plpgsql
  volatile
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set enable_hashjoin = off
  set enable_mergejoin = off
as $$
declare
  v_pages bigint := pg_relation_size('progress') / current_setting('block_size')::integer;
  v_step  bigint := sweep_progress.max_rows / 50 + 1;  -- a page holds 2 to 80 rows
  v_page  bigint := (select progress_swept.last_value from progress_swept);
  v_tids  tid[];
  v_swept bigint;
begin
  if v_pages = 0 then
    return 0;
  end if;
  v_page := case when v_page < v_pages then v_page else 0 end;
  v_tids := array(select progress.ctid
                    from progress
                   where progress.ctid >= format('(%s,0)', v_page)::tid
                     and progress.ctid < format('(%s,0)', v_page + v_step)::tid
                     and not exists (select from jobs where jobs.id = progress.job_id)
                     for update skip locked);
  -- Check again now that they are locked: this statement sees a job that was imported in the meantime.
  delete from progress
   where progress.ctid = any (v_tids)
     and not exists (select from jobs where jobs.id = progress.job_id);
  get diagnostics v_swept = row_count;
  perform setval('progress_swept', v_page + v_step);
  return v_swept;
end;
$$;
comment on function sweep_progress(integer) is
  'Private: delete progress whose jobs no longer exist; returns how many.';
