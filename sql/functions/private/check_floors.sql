-- check_floors: delete floors that hide places, at most once a minute in each session; return whether there were any.
--
-- No place is below a floor unless the sequence of places was set back: manually, by a restore, or by a failover that
-- brought the tables but not the sequences. A claim that finds nothing calls this, so that no job stays hidden.
create or replace function check_floors()
  returns boolean
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_now constant double precision := extract(epoch from clock_timestamp());
begin
  if v_now - coalesce(nullif(current_setting('pgjobq.floors_checked', true), ''), '0')::double precision between 0 and 60 then
    return false;
  end if;
  perform set_config('pgjobq.floors_checked', v_now::text, false);
  delete from floors
   where floors.ctid = any (array(
           select low.ctid
             from (select floors.ctid, floors.* from floors for update skip locked) as low
            where (select ready.seq from ready
                    where ready.queue = low.queue and ready.lane = low.lane and ready.seq < low.seq
                    order by ready.seq limit 1) is not null));
  return found;
end;
$$;
comment on function check_floors() is 'Private: delete floors that hide places, at most once a minute in each session.';
