-- queues: every queue that has jobs in line, that a worker names, or that is paused; and its pause.
create or replace view queues as
select queue.name, pauses.name is not null as paused, pauses.paused_at, pauses.paused_until, pauses.paused_by, pauses.reason
  from queue_names() as queue (name)
  left join pauses on pauses.kind = 'queue' and pauses.name = queue.name
                  and (pauses.paused_until is null or pauses.paused_until > now());
comment on view queues is 'The queues that have jobs in line, that a worker names or that are paused, and their pauses.';
