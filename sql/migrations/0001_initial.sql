-- 0001_initial: create the tables.
--
-- `jobs` is the durable record. `ready`, `scheduled` and `claims` are narrow tables for what changes with every claim,
-- so that a claim and a completion change no index of `jobs` (they are HOT updates).

create table schema_version (
  version    integer     not null primary key,
  applied_at timestamptz not null default now()
);

-- The checks belong to domains, because PostgreSQL parses the checks of a table again for every statement that inserts
-- or updates, which is a good part of the cost of a single job.
create domain job_status as text
  constraint status_is_pending_running_completed_failed_or_cancelled
       check (value in ('pending', 'running', 'completed', 'failed', 'cancelled'));
-- The check refuses times that some clients cannot read: infinity, and years that their dates do not have.
create domain job_execute_at as timestamptz
  constraint execute_at_is_in_the_years_1_to_9999 check (value >= '0001-01-02Z' and value < '9999-12-31Z');
create domain job_attempts as integer
  constraint attempts_is_not_negative check (value >= 0);
create domain job_max_retries as integer
  constraint max_retries_is_not_negative check (value >= 0);

create table jobs (
  id          text            collate "C" not null default new_job_id(),
  queue       text            collate "C" not null default 'default',
  type        text            collate "C" not null,
  data        jsonb           not null default '{}',
  status      job_status      not null default 'pending',
  priority    integer         not null default 5,
  attempts    job_attempts    not null default 0,
  crashes     integer         not null default 0,
  max_retries job_max_retries not null default 3,
  execute_at  job_execute_at,
  error       text,
  created_at  timestamptz     not null default now(),
  updated_at  timestamptz     not null default now(),
  started_at  timestamptz,
  finished_at timestamptz,
  failed_at   timestamptz,
  claim_id    bigint,
  worker_id   integer,
  constraint job_id_exists_already primary key (id)
)
-- Each page has room for a second version of all its rows, because a batch claims a whole page in one statement, and
-- the versions that it replaces can be pruned only after it commits. At a fillfactor of 70, half of the updates were
-- not HOT, a claim and completion cost 1.3 times as much, and the table with its indexes was no smaller.
--
-- vacuum_truncate is off, here and below, because vacuum blocks every claim while it truncates a file.
with (fillfactor = 40, vacuum_truncate = off);

-- Serves list_jobs (newest first) and prune_jobs (oldest first). Neither a claim nor a completion changes created_at.
create index jobs_created_at on jobs (created_at, id);
-- Serves list_jobs and job_stats for failed jobs; contains only failed jobs.
create index jobs_failed on jobs (created_at, id) where failed_at is not null;

-- The numbers of places. In the tables below, `lane` is the negated priority, so that an index in ascending order
-- begins with the highest priority. It is a bigint, because the negative of the lowest integer is not an integer.
create sequence place_seq as bigint cache 1;

create table ready (
  queue  text    collate "C" not null,
  lane   bigint  not null,
  seq    bigint  not null default nextval('place_seq'),
  job_id text    collate "C" not null
)
with (vacuum_truncate = off);
-- Serves claim_jobs, which reads the places of a queue in order from any (lane, seq).
create index ready_claim on ready (queue, lane, seq);

create table scheduled (
  execute_at timestamptz not null,
  seq        bigint  not null default nextval('place_seq'),
  queue      text    collate "C" not null,
  lane       bigint  not null,
  job_id     text    collate "C" not null
)
-- This is vacuumed early, even with millions of scheduled jobs, because each claim searches it for due jobs and walks
-- the dead entries of jobs that were due before.
with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, vacuum_truncate = off);
-- Serves promote_jobs, which reads the due jobs, earliest first.
create index scheduled_due on scheduled (execute_at, seq);

-- Where the claims of a lane may begin (see advance_floors). A lane may have two floors, and both are valid. There is
-- no unique index, so that no transaction waits for another.
create table floors (
  queue    text        collate "C" not null,
  lane     bigint      not null,
  seq      bigint      not null,
  moved_at timestamptz not null
);
-- Serves take_line, next_places and advance_floors, which read the floors of a queue in order.
create index floors_queue_lane on floors (queue, lane);

create table workers (
  id           integer     generated always as identity (cycle) primary key,
  name         text        not null,
  queues       text[],
  left_types   text[]      not null default '{}',  -- types that the worker leaves to others
  started_at   timestamptz not null default now(),
  heartbeat_at timestamptz
);
-- Workers that were seen without their lock. Rows are only inserted and deleted, and the oldest visible row of a worker
-- counts, so that a transaction that is left open does not keep others from recording the same worker.
create unlogged table suspects (
  worker_id integer     not null,
  seen_at   timestamptz not null
);

-- A claim's id is never used again, so that a settle can name the start that it belongs to.
create sequence claim_seq as bigint;
create table claims (
  worker_id  integer     not null,
  id         bigint      not null,
  claimed_at timestamptz not null,
  job_ids    text[]      not null,
  primary key (worker_id, id)
)
with (vacuum_truncate = off);

-- Where each worker listens, and which queues it serves. Rows are written when a worker starts or stops. Whether it
-- sleeps now is shown by its keys (see lock_class), which leave nothing for vacuum. The table is unlogged, because
-- after a crash of the server no worker sleeps, and each registers again.
create unlogged table doorbell (
  worker_id     integer          not null primary key,
  queues        text[],
  alarm_seconds double precision not null,
  channel       text             not null,
  passed_over   boolean          not null default false  -- the worker was notified and did not answer
);
-- The worker that was notified last, so that the next one has its turn. setval writes it and waits for no transaction.
create unlogged sequence doorbell_turn as integer minvalue 0;

-- Under a publication `for all tables`, PostgreSQL refuses updates and deletes of tables without a replica identity.
alter table ready     replica identity full;
alter table scheduled replica identity full;
alter table floors    replica identity full;
