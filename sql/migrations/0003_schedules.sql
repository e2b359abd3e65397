-- 0003_schedules: jobs that are added again and again, at moments that a cron expression or an interval gives.
--
-- The next run of a schedule is a place in scheduled, with a schedule_id and no job_id. So the alarm that serves jobs
-- which are due later serves schedules too, and promote_jobs adds the job.
alter table scheduled add column schedule_id text collate "C";
alter table scheduled alter column job_id drop not null;

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
