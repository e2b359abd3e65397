-- 0002_told: what jobs and queues can be told.

-- When a job may no longer be started.  A plain timestamptz, because PostgreSQL rewrites the table for a new column
-- whose domain has a constraint.
alter table jobs add column expires_at timestamptz;

-- Queues and types that are paused.  A row whose paused_until has passed pauses nothing.
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
