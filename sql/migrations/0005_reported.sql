-- 0005_reported: what running jobs report of themselves. Each block serves one feature.

-- Progress. Unlogged and one row a job, because it is written again and again while the job runs, and is worth nothing
-- after that. A crash of the server empties it. claim_id is the start that reported it.
create unlogged table progress (
  job_id     text        collate "C" not null primary key,
  claim_id   bigint      not null,
  fraction   float8      not null,
  message    text,
  meta       jsonb,
  updated_at timestamptz not null default clock_timestamp(),
  constraint fraction_is_from_0_to_1 check (fraction between 0 and 1)
)
with (fillfactor = 70, vacuum_truncate = off);
create unlogged sequence progress_swept as bigint minvalue 0;

-- What handlers log, if they opt in. Logged, because after a crash of the server it helps to find out what a job has
-- done. The key makes a repeated write harmless: claim_id and seq name a line of one start.
create table log_lines (
  job_id    text        collate "C" not null,
  claim_id  bigint      not null,
  seq       integer     not null,
  attempt   integer     not null,
  logged_at timestamptz not null,
  level     text        not null,
  logger    text        not null,
  line      text        not null,
  added_at  timestamptz not null default clock_timestamp(),
  constraint log_lines_pkey primary key (job_id, claim_id, seq)
)
with (vacuum_truncate = off);
create unlogged sequence log_lines_swept as bigint minvalue 0;
