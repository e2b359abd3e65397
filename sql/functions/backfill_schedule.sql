-- backfill_schedule: add the jobs of the ticks from since to until that have none, and return how many.
--
-- The ticks are those of the schedule as it is now, even if it is not enabled. The next run stays as it is, and jobs may
-- overlap. until may not be in the future. Raises JQ009 for more than 10,000 ticks, and JQ010 if there is no schedule
-- with this id.
create or replace function backfill_schedule(id text, since timestamptz, until timestamptz default clock_timestamp())
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v        constant schedules := held_schedule(backfill_schedule.id);
  v_ticks  timestamptz[] := '{}';
  v_tick   timestamptz   := backfill_schedule.since - interval '1 microsecond';
  v_added  integer;
begin
  if not coalesce(backfill_schedule.since between '0001-01-02Z' and backfill_schedule.until
                  and backfill_schedule.until <= clock_timestamp(), false) then
    raise exception using errcode = 'JQ009', hint = 'Use two moments of the past, the earlier one first.',
      message = format('since, until: %s to %s is not a time that has passed', coalesce(backfill_schedule.since::text, 'null'),
                       coalesce(backfill_schedule.until::text, 'null'));
  end if;
  loop
    v_tick := schedule_next(v, v_tick);
    exit when v_tick is null or v_tick > backfill_schedule.until;
    v_ticks := v_ticks || v_tick;
    if cardinality(v_ticks) > 10000 then
      raise exception using errcode = 'JQ009', hint = 'Call it for shorter times, one after the other.',
        message = 'since, until: there are more than 10000 ticks';
    end if;
  end loop;
  insert into jobs (id, queue, type, data, priority, max_retries, execute_at)
  select tick_id(v.id, tick.at), v.queue, v.type, v.data, v.priority, v.max_retries, tick.at
    from unnest(v_ticks) as tick (at)
   order by tick.at
  on conflict on constraint job_id_exists_already do nothing;
  get diagnostics v_added = row_count;
  return v_added;
end;
$$;
comment on function backfill_schedule(text, timestamptz, timestamptz) is
  'Add the jobs of the ticks from since to until that have none; returns how many.';
