-- 0002_told: what a caller can tell about a job or a queue. Each block serves one feature.

-- Unique keys. A row of unique_keys is a hint: it names the job that last took the key, and that job's own row decides
-- whether the key is taken. So nothing that ends a job has to release its key. Because of the primary key, transactions
-- that enqueue the same key wait for each other. The sequence is the page at which sweep_unique_keys begins.
alter table jobs add column unique_key text collate "C";
create table unique_keys (
  key    text collate "C" not null primary key,
  job_id text collate "C" not null
)
with (vacuum_truncate = off);
create unlogged sequence unique_keys_swept as bigint minvalue 0;

-- Expiry. Not the domain of execute_at, because adding a column whose domain has a check rewrites the table.
alter table jobs add column expires_at timestamptz;

-- Pauses of queues and of types. A row whose paused_until has passed pauses nothing.
create table pauses (
  kind         text        collate "C" not null,
  name         text        collate "C" not null,
  paused_at    timestamptz not null default now(),
  paused_until timestamptz,
  paused_by    text        not null,
  reason       text,
  constraint pauses_pkey primary key (kind, name),
  constraint kind_is_queue_or_type check (kind in ('queue', 'type'))
);
