-- 0002_told: what a job can be told when it is enqueued.  Each block below serves one feature.

-- Unique keys.  A row of unique_keys is a hint: it names the job that took the key last, and that job's own row decides
-- whether the key is taken.  So nothing that ends a job has to release its key.  The primary key makes enqueues of one
-- key wait for each other.  The sequence is the page from which sweep_unique_keys goes on.
alter table jobs add column unique_key text collate "C";
create table unique_keys (
  key    text collate "C" not null primary key,
  job_id text collate "C" not null
)
with (vacuum_truncate = off);
create unlogged sequence unique_keys_swept as bigint minvalue 0;

-- Expiry.  Not the domain of execute_at: to add a column of a domain with a check rewrites the table.
alter table jobs add column expires_at timestamptz;
