-- paused_types: the types of jobs that are paused.
create or replace view paused_types as
select pauses.name as type, pauses.paused_at, pauses.paused_until, pauses.paused_by, pauses.reason
  from pauses
 where pauses.kind = 'type'
   and (pauses.paused_until is null or pauses.paused_until > now());
comment on view paused_types is 'The types of jobs that are paused.';
