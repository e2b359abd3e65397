-- 0001_initial: the tables.  `jobs` is the durable record; `ready`, `scheduled`
-- and `claims` are narrow tables that carry the motion, so that a claim and a
-- completion leave no index entry of `jobs` behind (they are HOT updates).

create table schema_version (
  version    integer     not null primary key,
  applied_at timestamptz not null default now()
);

-- Domains rather than checks of the table, which PostgreSQL would parse anew for every statement
-- that inserts or updates: a good part of what a single job costs.
create domain job_status as text
  constraint status_is_pending_running_completed_failed_or_cancelled
       check (value in ('pending', 'running', 'completed', 'failed', 'cancelled'));
-- What every client can read: no infinity, no year that its dates do not have.
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
-- Room on each page for a second version of all its rows: a batch claims a whole page in
-- one statement, and the versions it replaces can be pruned only after its commit.  At 70
-- half of the updates were not HOT, a claim and completion cost 1.3 times as much, and the
-- table with its indexes was no smaller.
--
-- vacuum_truncate, here and below: to give the end of a file back, vacuum locks out every
-- claim for as long as it takes.
with (fillfactor = 40, vacuum_truncate = off);

-- Serves list_jobs (newest first) and prune_jobs (oldest first).  Neither a claim
-- nor a completion changes created_at.
create index jobs_created_at on jobs (created_at, id);
-- Serves list_jobs and job_stats for failed jobs; holds failed jobs alone.
create index jobs_failed on jobs (created_at, id) where failed_at is not null;

-- Places in line.  `lane` is the negated priority, so that an index in ascending order begins with the highest.
-- bigint, because the lowest integer has no negative.
create sequence place_seq as bigint cache 1;

create table ready (
  queue  text    collate "C" not null,
  lane   bigint  not null,
  seq    bigint  not null default nextval('place_seq'),
  job_id text    collate "C" not null
)
with (vacuum_truncate = off);
-- Serves claim_jobs: the head of a queue, in order, from any (lane, seq).
create index ready_claim on ready (queue, lane, seq);

create table scheduled (
  execute_at timestamptz not null,
  seq        bigint  not null default nextval('place_seq'),
  queue      text    collate "C" not null,
  lane       bigint  not null,
  job_id     text    collate "C" not null
)
-- Vacuumed early, also with millions of jobs ahead: each claim looks here for what is due,
-- and walks the dead entries of what was.
with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, vacuum_truncate = off);
-- Serves promote_jobs: what is due, earliest first.
create index scheduled_due on scheduled (execute_at, seq);

-- Where claims may begin, see advance_floors.  Not unique, so that no transaction waits for another: of two floors of
-- one lane both hold.
create table floors (
  queue    text        collate "C" not null,
  lane     bigint      not null,
  seq      bigint      not null,
  moved_at timestamptz not null
);
-- Serves next_places and advance_floors: the floors of a queue, in order.
create index floors_queue_lane on floors (queue, lane);

create table workers (
  id           integer     generated always as identity (cycle) primary key,
  name         text        not null,
  queues       text[],
  left_types   text[]      not null default '{}',  -- types that it leaves to other workers
  started_at   timestamptz not null default now(),
  heartbeat_at timestamptz
);
-- Workers that were seen without their lock.  Rows are only added and removed, so that a transaction which is left open
-- keeps no other from noting the same worker: the oldest visible row counts.
create unlogged table suspects (
  worker_id integer     not null,
  seen_at   timestamptz not null
);

-- The number of a claim never comes again, so that a settle can name the start it belongs to.
create sequence claim_seq as bigint;
create table claims (
  worker_id  integer     not null,
  id         bigint      not null,
  claimed_at timestamptz not null,
  job_ids    text[]      not null,
  primary key (worker_id, id)
)
with (vacuum_truncate = off);

-- Where each worker listens, and what it wants.  Rows are written when a worker comes and goes; whether it sleeps just
-- now is told by its keys (see lock_class), which leave nothing for vacuum.  Unlogged: after a crash of the server no
-- worker sleeps, and each registers again.
create unlogged table doorbell (
  worker_id     integer          not null primary key,
  queues        text[],
  alarm_seconds double precision not null,
  channel       text             not null,
  passed_over   boolean          not null default false  -- it was notified and did not answer
);
-- The worker that was notified last: the next one has its turn.  Written by setval, which no transaction holds up.
create unlogged sequence doorbell_turn as integer minvalue 0;

-- A publication `for all tables` would refuse updates and deletes of tables without a key.
alter table ready     replica identity full;
alter table scheduled replica identity full;
alter table floors    replica identity full;
