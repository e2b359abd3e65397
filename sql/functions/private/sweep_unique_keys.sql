-- sweep_unique_keys: delete unique keys whose jobs no longer exist; return how many.
--
-- The key of a job that has ended is kept as long as the job, because unique_for may still count it. A call examines
-- about max_keys keys, beginning at the page where the last call stopped, and goes on while it finds many to delete. It
-- skips keys that another transaction has locked, and waits for nothing.
create or replace function sweep_unique_keys(max_keys integer)
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
  v_pages bigint := pg_relation_size('unique_keys') / current_setting('block_size')::integer;
  v_step  bigint := sweep_unique_keys.max_keys / 50 + 1;  -- a page holds 60 to 150 keys
  v_page  bigint := (select unique_keys_swept.last_value from unique_keys_swept);
  v_all   bigint := 0;
  v_tids  tid[];
  v_swept bigint;
begin
  for v_round in 1 .. least(20, (v_pages + v_step - 1) / v_step) loop
    v_page := case when v_page < v_pages then v_page else 0 end;
    v_tids := array(select unique_keys.ctid
                      from unique_keys
                     where unique_keys.ctid >= format('(%s,0)', v_page)::tid
                       and unique_keys.ctid < format('(%s,0)', v_page + v_step)::tid
                       and not exists (select from jobs where jobs.id = unique_keys.job_id)
                       for update skip locked);
    -- Check again now that they are locked: this statement sees a job that has taken one of the keys in the meantime.
    delete from unique_keys
     where unique_keys.ctid = any (v_tids)
       and not exists (select from jobs where jobs.id = unique_keys.job_id);
    get diagnostics v_swept = row_count;
    v_all  := v_all + v_swept;
    v_page := v_page + v_step;
    perform setval('unique_keys_swept', v_page);
    exit when v_swept < v_step * 10;
  end loop;
  return v_all;
end;
$$;
comment on function sweep_unique_keys(integer) is
  'Private: delete unique keys whose jobs no longer exist; returns how many.';
