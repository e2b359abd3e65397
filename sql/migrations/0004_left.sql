-- 0004_left: what jobs and operators leave behind. Each block serves one feature.

-- Tries that did not succeed. There is no foreign key, because that would lock the job's row at each insert, and no
-- unique key, because the settle of a try is fenced by its job. prune_jobs deletes the rows of the jobs that it deletes.
create table attempts (
  job_id      text        collate "C" not null,
  attempt     integer     not null,
  worker_id   integer,
  worker      text,
  started_at  timestamptz,
  ended_at    timestamptz not null default clock_timestamp(),
  outcome     text        collate "C" not null,
  error_class text        collate "C",
  error       text,
  constraint outcome_is_raised_timed_out_worker_died_cancelled_or_released
       check (outcome in ('raised', 'timed out', 'worker died', 'cancelled', 'released'))
)
with (vacuum_truncate = off);
-- Serves list_attempts and forget_jobs.
create index attempts_job on attempts (job_id, ended_at);
-- A publication of all tables refuses the deletes of a table without a key.
alter table attempts replica identity full;
create unlogged sequence attempts_swept as bigint minvalue 0;

-- What the failure of a failed job is grouped by. No index, because a completion must stay a HOT update.
alter table jobs add column fingerprint text collate "C";

-- What operators did. The view actions shows it.
create table action_log (
  id     bigint      generated always as identity primary key,
  at     timestamptz not null default clock_timestamp(),
  role   text        not null,
  actor  text,
  action text        collate "C" not null,
  target text        not null,
  jobs   bigint,
  reason text
);

-- Results: what handlers return. A table of its own, because a row of jobs that grows by a few hundred bytes leaves its
-- page: its update is not HOT. A row is the job's result only while the job is completed and has the same claim_id, so
-- nothing that changes a job has to look here.
create table results (
  job_id   text   collate "C" not null primary key,
  claim_id bigint,  -- null: the job was imported
  result   jsonb  not null
)
with (vacuum_truncate = off);
create unlogged sequence results_swept as bigint minvalue 0;

-- Waits. A row names a job for which a session waits. It is unlogged, because after a crash of the server no session
-- waits any more. The session's key (see lock_class) shows that it still does.
create unlogged table waits (
  job_id  text    collate "C" not null,
  waiter  integer not null  -- pg_backend_pid() of the session
)
with (vacuum_truncate = off);
-- Serves notify_waiters, which looks for the jobs that have ended.
create index waits_job_id on waits (job_id);
