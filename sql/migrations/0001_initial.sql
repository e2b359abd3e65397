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
  max_retries job_max_retries not null default 3,
  execute_at  job_execute_at,
  error       text,
  created_at  timestamptz     not null default now(),
  updated_at  timestamptz     not null default now(),
  started_at  timestamptz,
  finished_at timestamptz,
  failed_at   timestamptz,
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
with (fillfactor = 45, vacuum_truncate = off);

-- Serves list_jobs (newest first) and prune_jobs (oldest first).  Neither a claim
-- nor a completion changes created_at.
create index jobs_created_at on jobs (created_at, id);
-- Serves list_jobs and job_stats for failed jobs; holds failed jobs alone.
create index jobs_failed on jobs (created_at, id) where failed_at is not null;

create sequence place_seq as bigint cache 1;

create table ready (
  queue    text    collate "C" not null,
  priority integer not null,
  seq      bigint  not null default nextval('place_seq'),
  job_id   text    collate "C" not null
)
with (vacuum_truncate = off);
-- Serves claim_jobs: the head of a queue, in order.  The priority is negated, so that a scan
-- can begin at any (priority, seq) by one comparison of rows.
create index ready_claim on ready (queue, (- priority::bigint), seq);

-- Where claims may begin, see advance_floors.  A lane is a queue and a priority.
create table floors (
  queue    text        collate "C" not null,
  priority integer     not null,
  seq      bigint      not null,
  moved_at timestamptz not null,
  primary key (queue, priority)
);
-- One row: what advance_floors knows of all lanes.
create table horizon (
  safe       bigint      not null,  -- no place below this can appear any more
  candidate  bigint      not null,  -- nor below this, once all of open have ended
  open       text[]      not null,
  checked_at timestamptz not null
);
insert into horizon values (0, 0, '{}', now());

create table scheduled (
  execute_at timestamptz not null,
  seq        bigint  not null default nextval('place_seq'),
  queue      text    collate "C" not null,
  priority   integer not null,
  job_id     text    collate "C" not null
)
-- Vacuumed early, also with millions of jobs ahead: each claim looks here for what is due,
-- and walks the dead entries of what was.
with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, vacuum_truncate = off);
-- Serves promote_jobs: what is due, earliest first.
create index scheduled_due on scheduled (execute_at, seq);

create table workers (
  id           integer     generated always as identity primary key,
  name         text        not null,
  queues       text[],
  started_at   timestamptz not null default now(),
  heartbeat_at timestamptz,
  suspected_at timestamptz
);

create table claims (
  worker_id  integer     not null,
  id         bigint      generated always as identity,
  claimed_at timestamptz not null default now(),
  job_ids    text[]      not null,
  primary key (worker_id, id)
)
with (vacuum_truncate = off);

-- Who may be notified, and where.  Rows are written when a worker comes and goes; whether
-- it sleeps just now is told by locks (see ring_doorbell), which leave nothing for vacuum.
-- Unlogged: after a crash of the server nobody sleeps, every worker registers anew.
create unlogged table doorbell (
  worker_id     integer          not null primary key,
  queues        text[],
  alarm_seconds double precision not null,
  channel       text             not null
);
