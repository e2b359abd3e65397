-- 0003_schedules: jobs that are added again and again, at moments that a cron expression or an interval gives.
--
-- The next run of a schedule is a place in scheduled, with a schedule_id and no job_id. So the alarm that serves jobs
-- which are due later serves schedules too, and promote_jobs adds the job.
alter table scheduled add column schedule_id text collate "C";
alter table scheduled alter column job_id drop not null;

-- The ids of the schedules that the worker's program declares.
alter table workers add column declares text[] not null default '{}';

create table schedules (
  id          text        collate "C" not null primary key,
  type        text        collate "C" not null,
  data        jsonb       not null default '{}',
  kind        text        collate "C" not null default 'cron',
  expression  text        not null,
  time_zone   text        not null default 'UTC',
  queue       text        collate "C" not null default 'default',
  priority    integer     not null default 5,
  max_retries integer     not null default 3,
  missed      text        collate "C" not null default 'once',
  catch_up    integer     not null default 1000,
  overlap     text        collate "C" not null default 'skip',
  jitter      interval    not null default '0',
  starts_at   timestamptz,
  ends_at     timestamptz,
  enabled     boolean     not null default true,
  next_run    timestamptz,
  last_run    timestamptz,
  last_job    text        collate "C",
  last_error  text,
  declared    jsonb,        -- the declaration that made it what it is
  place       bigint,       -- the seq of the place; any other place of the schedule is an orphan
  place_at    timestamptz,  -- its execute_at, by which it is found
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now(),
  -- A job's id is the schedule's, an @ and the tick. Without an @ in it, the ids of the jobs of two schedules differ.
  constraint schedule_id_is_1_to_200_characters_without_at check (length(id) between 1 and 200 and id !~ '@'),
  constraint schedule_kind_is_cron_or_interval check (kind in ('cron', 'interval')),
  constraint missed_is_once_skip_or_all check (missed in ('once', 'skip', 'all')),
  constraint overlap_is_skip_or_allow check (overlap in ('skip', 'allow'))
)
-- Each run updates a row, and no index has a column that it changes.
with (fillfactor = 70, vacuum_truncate = off);

-- These are here, and not in comments.sql, because the table is new.
comment on table schedules is 'One row for each schedule. Use the functions to change one.';
comment on column schedules.id is
  'The schedule''s unique name. The ids of its jobs begin with it and an @.';
comment on column schedules.kind is 'cron or interval.';
comment on column schedules.expression is
  'A cron expression (see next_tick); or seconds or an interval, counted from starts_at.';
comment on column schedules.missed is
  'Which ticks get a job if several passed before a worker claimed: once (the last), skip (the last, if it is not late), all.';
comment on column schedules.catch_up is 'How many ticks at most get a job at once if missed is all.';
comment on column schedules.overlap is
  'skip: a tick gets no job while last_job is unfinished; allow: it does.';
comment on column schedules.jitter is 'A job is added up to this much after its tick, at random.';
comment on column schedules.enabled is 'Whether the schedule has a next run; false: it is paused.';
comment on column schedules.next_run is
  'The tick that gets the next job; null: the schedule is paused, has ended, or has stopped (see last_error).';
comment on column schedules.last_run is 'The last tick that got a job.';
comment on column schedules.last_job is
  'The id of the last job, which decides whether the next one would overlap.';
comment on column schedules.last_error is
  'Why the schedule has stopped: its expression cannot be read, or its job cannot be added.';
comment on column schedules.declared is
  'The declaration of a program that was applied last, see declare_schedules; null: there was none.';
comment on column schedules.place is
  'Private: the seq of its place in scheduled; any other place is an orphan.';
comment on column schedules.place_at is 'Private: the execute_at of that place: next_run and the jitter.';
