-- lane_floor: how far the floor of a lane may move: to safe, or to its lowest place.
create or replace function lane_floor(queue text, priority integer, seq bigint, safe bigint)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
as $$
declare
  v_lowest bigint;
begin
  select ready.seq
    from ready
   where ready.queue = lane_floor.queue
     and - ready.priority::bigint = - lane_floor.priority::bigint
     and ready.seq >= lane_floor.seq
   order by ready.seq
   limit 1
    into v_lowest;
  return greatest(lane_floor.seq, least(lane_floor.safe, v_lowest));
end;
$$;
comment on function lane_floor(text, integer, bigint, bigint) is
  'Private: how far the floor of a lane may move.';
