-- pause_type: start no more jobs of this type, until resume_type or until a time.
--
-- After the commit, no job of it starts except those of a claim that was already under way. Running jobs go on, and
-- jobs can still be enqueued. A second pause replaces the end and the reason. until null: until it is resumed.
-- Raises JQ001 for an end that has passed.
create or replace function pause_type(type text, until timestamptz default null, reason text default null)
  returns void
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select pause('type', pause_type.type, pause_type.until, pause_type.reason);
$$;
comment on function pause_type(text, timestamptz, text) is 'Start no more jobs of this type, until it is resumed or until a moment.';
