-- schedule_next: return the first tick of a schedule after a moment; null if there is none.
--
-- Raises JQ009 if its expression or its time zone cannot be read. An interval is counted from starts_at, so it does not
-- drift; the first tick of one that starts in the future is starts_at itself.
create or replace function schedule_next(schedule schedules, after timestamptz)
  returns timestamptz
  language plpgsql
  stable
  set search_path from current
as $$
declare
  v_start constant timestamptz := (schedule_next.schedule).starts_at;
  v_step  bigint;
  v_next  timestamptz;
begin
  if (schedule_next.schedule).kind = 'cron' then
    v_next := cron_next(cron_fields((schedule_next.schedule).expression), (schedule_next.schedule).time_zone,
                        greatest(schedule_next.after, v_start - interval '1 microsecond'));
  else
    v_step := schedule_step((schedule_next.schedule).expression);
    v_next := case when schedule_next.after < v_start then v_start
                   else v_start + interval '1 microsecond'
                        * (v_step * (div((extract(epoch from schedule_next.after) - extract(epoch from v_start)) * 1000000,
                                         v_step) + 1)) end;
  end if;
  return case when v_next > (schedule_next.schedule).ends_at or v_next >= timestamptz '9999-01-01 00:00:00Z' then null
              else v_next end;
end;
$$;
comment on function schedule_next(schedules, timestamptz) is
  'Private: return the first tick of a schedule after a moment; null if there is none.';
