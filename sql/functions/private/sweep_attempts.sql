-- sweep_attempts: delete attempts whose jobs no longer exist; return how many.
--
-- As sweep_unique_keys does, it examines about max_rows rows, beginning at the page where the last call stopped. It skips
-- rows that another transaction has locked. A job exists before its attempts, so a row that is seen without its job has
-- lost it.
create or replace function sweep_attempts(max_rows integer)
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
  v_pages bigint := pg_relation_size('attempts') / current_setting('block_size')::integer;
  v_step  bigint := sweep_attempts.max_rows / 10 + 1;  -- a page holds 3 to 50 rows
  v_page  bigint := (select attempts_swept.last_value from attempts_swept);
  v_all   bigint := 0;
  v_swept bigint;
begin
  for v_round in 1 .. least(20, (v_pages + v_step - 1) / v_step) loop
    v_page := case when v_page < v_pages then v_page else 0 end;
    delete from attempts
     where attempts.ctid = any (array(
             select attempts.ctid
               from attempts
              where attempts.ctid >= format('(%s,0)', v_page)::tid
                and attempts.ctid < format('(%s,0)', v_page + v_step)::tid
                and not exists (select from jobs where jobs.id = attempts.job_id)
                for update skip locked));
    get diagnostics v_swept = row_count;
    v_all  := v_all + v_swept;
    v_page := v_page + v_step;
    perform setval('attempts_swept', v_page);
    exit when v_swept < v_step;
  end loop;
  return v_all;
end;
$$;
comment on function sweep_attempts(integer) is 'Private: delete attempts whose jobs no longer exist; returns how many.';
