-- advance_floors: move the floors of all lanes up.
--
-- Under an old snapshot (a dump, a forgotten transaction) vacuum removes nothing.  So that
-- claims need not walk all the places taken since, each lane, a queue and a priority, has a
-- floor where they begin: a seq below which no place is, or can appear.
--
-- Call it now and then, with safe and open as the call before returned them, and with the
-- queues and priorities of jobs claimed since: a lane with no place in line is not found
-- otherwise.  The 400 floors that moved last are kept.  moved: how many did now.
--
-- The proof: safe was read from the sequence before open, the transactions that might hold
-- a number below it.  A job is changed, and so its transaction has an id, before its place
-- draws a number (see open_transactions).  Once all of open have ended, every place below
-- safe is visible or gone, and a floor moves to safe, or to the lowest place of its lane.
-- A place whose taking is not committed is visible; a job put back in line gets a new seq.
create or replace function advance_floors(inout safe bigint default 0, inout open xid8[] default '{}',
                                          queues text[] default '{}', priorities integer[] default '{}', out moved integer)
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
  v_next constant bigint := (select place_seq.last_value + place_seq.is_called::integer from place_seq);
  v_safe bigint := advance_floors.safe;
begin
  moved := 0;
  -- An older snapshot would not see places that a floor must not pass.
  if current_setting('transaction_isolation') <> 'read committed' then
    return;
  end if;
  -- When the sequence was set back, a floor would hide what is enqueued now.
  delete from floors
   where floors.ctid = any (array(
           select floors.ctid from floors
            where floors.seq > v_next or advance_floors.safe > v_next
               or floors.moved_at < (select floors.moved_at from floors order by floors.moved_at desc offset 399 limit 1)
              for update skip locked));
  open := open_transactions('ready', advance_floors.open);
  if open <> '{}' then
    return;
  end if;
  safe := v_next;
  open := open_transactions('ready');
  v_safe := case when open = '{}' then safe else least(v_safe, safe) end;
  with lane as materialized (
    select lanes.queue, lanes.lane, max(floors.seq) as seq
      from (select * from ready_lanes()
            union
            select claimed.queue, - claimed.priority::bigint
              from unnest(advance_floors.queues collate "C", advance_floors.priorities) as claimed (queue, priority)) as lanes
      left join floors on floors.queue = lanes.queue and floors.lane = lanes.lane
     group by lanes.queue, lanes.lane
  ), floor as materialized (
    select lane.queue, lane.lane, least(v_safe, lowest.seq) as seq from lane
      left join lateral (
        select ready.seq from ready
         where ready.queue = lane.queue and ready.lane = lane.lane and ready.seq >= coalesce(lane.seq, 0)
         order by ready.seq limit 1) as lowest on true
     where least(v_safe, lowest.seq) >= coalesce(lane.seq, 0) + 1000
  ), gone as (
    delete from floors
     where floors.ctid = any (array(
             select floors.ctid
               from floors
               join floor on floor.queue = floors.queue and floor.lane = floors.lane and floor.seq > floors.seq
                for update of floors skip locked))
  )
  insert into floors (queue, lane, seq, moved_at)
  select floor.*, clock_timestamp() from floor;
  get diagnostics moved = row_count;
end;
$$;
comment on function advance_floors(bigint, xid8[], text[], integer[]) is
  'Move the floors of all lanes up, so that claims pass over what was taken.';
