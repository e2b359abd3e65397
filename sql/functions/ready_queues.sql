-- ready_queues: the names of the queues that may have a job ready.
--
-- Those that have floors, and those found between them by steps from one name to the next in
-- the index: its cost is the number of queues, not of jobs, taken ones included.
create or replace function ready_queues()
  returns setof text
  language plpgsql
  stable
  security definer
  set search_path from current
  set enable_seqscan = off
  set enable_bitmapscan = off
  set plan_cache_mode = force_generic_plan
  set jit = off
as $$
declare
  v_after text := '';
  v_known text;
  v_next  text;  -- null when there is none
begin
  for v_known in select distinct floors.queue from floors order by floors.queue loop
    loop
      -- The upper bound must stand in the index condition: beyond it lie taken places.
      select ready.queue
        from ready
       where ready.queue > v_after and ready.queue < v_known
       order by ready.queue
       limit 1
        into v_next;
      exit when v_next is null;
      return next v_next;
      v_after := v_next;
    end loop;
    return next v_known;
    v_after := v_known;
  end loop;
  loop
    select ready.queue from ready where ready.queue > v_after order by ready.queue limit 1 into v_next;
    exit when v_next is null;
    return next v_next;
    v_after := v_next;
  end loop;
end;
$$;
comment on function ready_queues() is 'Private: the names of the queues that may have a job ready.';
