-- advance_floors: raise the floors of all lanes, so that claims skip the places that were taken.
--
-- While an old snapshot is open (a dump, a forgotten transaction), vacuum removes nothing, and a claim would walk past
-- every place that was taken since. Each lane, which is one queue and one priority, therefore has a floor: a seq below
-- which no place is or can appear. A claim begins there.
--
-- Call it now and then. Pass the safe and open that the previous call returned, and the queues and priorities of the
-- jobs claimed since then; a lane without a place in ready is found only by these. moved is the number of floors that
-- rose. A floor rises by 1,000 or more, and the 400 floors that rose last are kept.
--
-- Why no place is missed: safe was read from the sequence before open, which lists the transactions that might hold a
-- number below safe. A transaction changes a job, and so gets an id, before it draws a number for the job's place (see
-- open_transactions). When all of open have ended, every place below safe is visible or gone. A floor may then rise to
-- safe, or to the lowest place of its lane if that is less. A place stays visible until the claim that takes it
-- commits, and a job that becomes pending again gets a new seq.
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
  -- The snapshot of an older transaction may not show every place that a floor must not pass.
  if current_setting('transaction_isolation') <> 'read committed' then
    return;
  end if;
  -- Delete floors that would hide new jobs because the sequence was set back, and all but the last 400.
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
  'Raise the floors of all lanes, so that claims skip the places that were taken.';
