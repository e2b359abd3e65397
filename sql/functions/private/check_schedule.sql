-- check_schedule: raise JQ009 that says which value of a schedule is not allowed; return if all are allowed.
--
-- For type, queue and data it raises what an enqueue raises, JQ001.
create or replace function check_schedule(schedule schedules, priority bigint)
  returns void
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v constant schedules := check_schedule.schedule;
  v_null     text;
  v_message  text;
  v_hint     text;
begin
  select string_agg(field.key, ', ') into v_null
    from jsonb_each(to_jsonb(v)) as field
   where field.value = 'null' and field.key not in ('starts_at', 'ends_at', 'next_run', 'last_run', 'last_job', 'last_error', 'declared',
                                                     'place', 'place_at');
  if v_null is not null then
    v_message := format('%s: it may not be null', v_null);
    v_hint    := 'Leave an argument out to use its default; id, type and expression have none.';
  elsif length(v.id) not between 1 and 200 or v.id ~ '[@[:cntrl:]]' then
    v_message := format('id: %L is not an id', left(v.id, 60));
    v_hint    := 'Use 1 to 200 characters without @ and without control characters.';
  elsif v.kind not in ('cron', 'interval') then
    v_message := format('kind: %L is not a kind of schedule', left(v.kind, 60));
    v_hint    := 'Use cron or interval.';
  elsif v.missed not in ('once', 'skip', 'all') then
    v_message := format('missed: %L is not a choice', left(v.missed, 60));
    v_hint    := 'Use once, skip or all.';
  elsif v.overlap not in ('skip', 'allow') then
    v_message := format('overlap: %L is not a choice', left(v.overlap, 60));
    v_hint    := 'Use skip or allow.';
  elsif v.missed = 'all' and v.overlap = 'skip' then
    v_message := 'overlap: skip would leave out the missed ticks';
    v_hint    := 'Use overlap => ''allow'' with missed => ''all'', or leave it out.';
  elsif v.catch_up not between 1 and 1000 then
    v_message := format('catch_up: %s is not a number of ticks', v.catch_up);
    v_hint    := 'Use 1 to 1000.';
  elsif check_schedule.priority not between -2147483648 and 2147483647 then
    v_message := format('priority: %s is out of range', check_schedule.priority);
    v_hint    := 'Use an integer from -2147483648 to 2147483647; higher runs first.';
  elsif v.max_retries < 0 then
    v_message := format('max_retries: %s is negative', v.max_retries);
    v_hint    := 'Use 0 or more; 0 allows a single try.';
  elsif not isfinite(v.jitter) or v.jitter not between interval '0' and interval '1 day' then
    v_message := format('jitter: %s is not a delay', v.jitter);
    v_hint    := 'Use an interval from 0 to 1 day.';
  elsif not coalesce(v.starts_at between '0001-01-02Z' and '9998-12-31Z', true)
     or not coalesce(v.ends_at between '0001-01-02Z' and '9998-12-31Z', true) then
    v_message := 'starts_at, ends_at: not a time in the years 1 to 9998';
    v_hint    := 'Leave out the one that has no limit.';
  elsif v.starts_at > v.ends_at then
    v_message := format('ends_at: %s is before starts_at', v.ends_at);
    v_hint    := 'Use a later time, or leave it out.';
  end if;
  if v_message is not null then
    raise exception using errcode = 'JQ009', message = v_message, hint = v_hint;
  end if;
  perform reject_job(v.id, v.type, v.queue, 'pending', v.data, nullif(current_setting('pgjobq.max_data_bytes', true), '')::bigint),
          check_time_zone(v.time_zone),
          case v.kind when 'cron' then cardinality(cron_fields(v.expression)) else schedule_step(v.expression) end;
  if v.kind = 'cron' and cron_next(cron_fields(v.expression), v.time_zone, clock_timestamp()) is null then
    raise exception using errcode = 'JQ009', hint = 'Use a day that the months have.',
      message = format('expression: %L is due on no day of the next 50 years', left(v.expression, 60));
  end if;
end;
$$;
comment on function check_schedule(schedules, bigint) is
  'Private: raise JQ009 that says which value of a schedule is not allowed.';
