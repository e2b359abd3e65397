-- create_schedule: create a schedule, or change the one with this id; return its next run.
--
-- At each tick, the next claim of any worker that serves the queue adds a job of this type, with the id
-- `schedule@tick` (in UTC, such as nightly@2026-11-25T09:00:00Z) and the tick as its execute_at. A tick has at most one
-- job, whatever happens.
--
--   expression       kind cron: see next_tick. kind interval: seconds, or an interval such as '15 minutes', counted from
--                    starts_at, or from now; an interval that is changed keeps its start.
--   missed           if no worker claims for a while, how many of the ticks that pass meanwhile get a job: once: the last
--                    one; skip: the last one, unless it is more than a minute late; all: the last catch_up, 1 to 1000
--   overlap          skip: a tick gets no job while the last job is unfinished. The default is skip, or with missed all
--                    allow.
--   jitter           the job is added up to this much after the tick, at random
--   starts_at, ends_at   there are no ticks before and after
--
-- A change of the timing begins from now; any other keeps the next run. Returns null if it is not enabled, or has no
-- tick before ends_at. Raises JQ009 for a value that is not allowed, and JQ001 for type, queue and data.
create or replace function create_schedule(id text, type text, expression text, data jsonb default '{}',
                                           time_zone text default 'UTC', kind text default 'cron', queue text default 'default',
                                           priority bigint default 5, max_retries integer default 3,
                                           missed text default 'once', catch_up integer default 1000,
                                           overlap text default null, jitter interval default '0',
                                           starts_at timestamptz default null, ends_at timestamptz default null,
                                           enabled boolean default true)
  returns timestamptz
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
#variable_conflict use_column
declare
  v_now constant timestamptz := clock_timestamp();
  v_own constant text[] := '{last_run,last_job,last_error,declared,place,place_at,created_at,updated_at}';  -- what a call does not set
  v_new schedules;
  v_old schedules;
begin
  v_new := row (create_schedule.id, create_schedule.type, create_schedule.data, create_schedule.kind, create_schedule.expression,
                create_schedule.time_zone, create_schedule.queue,
                case when create_schedule.priority between -2147483648 and 2147483647 then create_schedule.priority
                     when create_schedule.priority is not null then 0 end,
                create_schedule.max_retries, create_schedule.missed, create_schedule.catch_up,
                coalesce(create_schedule.overlap, case create_schedule.missed when 'all' then 'allow' else 'skip' end),
                create_schedule.jitter, create_schedule.starts_at, create_schedule.ends_at, create_schedule.enabled,
                null, null, null, null, null, null, null, v_now, v_now);
  perform check_schedule(v_new, create_schedule.priority);
  loop
    insert into schedules select v_new.* on conflict on constraint schedules_pkey do nothing;
    select * from schedules where schedules.id = v_new.id for update into v_old;
    exit when found;  -- another transaction may have deleted it in between
  end loop;
  if v_new.kind = 'interval' then
    v_new.starts_at := coalesce(v_new.starts_at, case v_old.kind when 'interval' then v_old.starts_at end, date_trunc('second', v_now));
  end if;
  if (v_old.kind, v_old.expression, v_old.time_zone, v_old.starts_at, v_old.ends_at, v_old.enabled, v_old.next_run is null)
     is distinct from (v_new.kind, v_new.expression, v_new.time_zone, v_new.starts_at, v_new.ends_at, v_new.enabled, false) then
    v_new.next_run := case when v_new.enabled then schedule_next(v_new, v_now) end;
  else
    v_new.next_run := v_old.next_run;
  end if;
  if to_jsonb(v_new) - v_own is distinct from to_jsonb(v_old) - v_own then
    update schedules
       set type = v_new.type, data = v_new.data, kind = v_new.kind, expression = v_new.expression, time_zone = v_new.time_zone,
           queue = v_new.queue, priority = v_new.priority, max_retries = v_new.max_retries, missed = v_new.missed,
           catch_up = v_new.catch_up, overlap = v_new.overlap, jitter = v_new.jitter, starts_at = v_new.starts_at,
           ends_at = v_new.ends_at, enabled = v_new.enabled, next_run = v_new.next_run, last_error = null, updated_at = v_now
     where schedules.id = v_new.id;
    perform place_schedule(v_new.id);
  end if;
  return v_new.next_run;
end;
$$;
comment on function create_schedule(text, text, text, jsonb, text, text, text, bigint, integer, text, integer, text, interval, timestamptz, timestamptz, boolean) is
  'Create a schedule, or change the one with this id; returns its next run.';
