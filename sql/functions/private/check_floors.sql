-- check_floors: drop the floors that have a place below them, and all but the 100 that moved last.
--
-- There is none below, unless somebody set the sequence back by hand.  Walks all that was
-- taken, so it is called rarely.
create or replace function check_floors()
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
  set enable_bitmapscan = off
as $$
begin
  delete from floors
   where lane_floor(floors.queue, floors.priority, 0, floors.seq) < floors.seq;
  delete from floors
   where (floors.queue, floors.priority) not in (
           select newest.queue, newest.priority from floors as newest order by newest.moved_at desc limit 100);
  update horizon set checked_at = statement_timestamp();
end;
$$;
comment on function check_floors() is 'Private: drop the floors that have a place below them.';
