-- end_pauses: remove the pauses whose end has passed, and notify a worker of each.
--
-- Claims do not wait for it, because they compare the end with the clock.
create or replace function end_pauses()
  returns void
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_pause record;
begin
  for v_pause in
    delete from pauses
     where pauses.ctid = any (array(
             select pauses.ctid from pauses where pauses.paused_until <= clock_timestamp() for update skip locked))
    returning pauses.kind, pauses.name
  loop
    perform notify_workers(case when v_pause.kind = 'queue' then array[v_pause.name] end);
  end loop;
end;
$$;
comment on function end_pauses() is
  'Private: remove the pauses whose end has passed, and notify a worker of each.';
