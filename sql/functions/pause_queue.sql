-- pause_queue: start no more jobs of this queue, until resume_queue or until a time.
--
-- After the commit, no job of it starts except those of a claim that was already under way. Running jobs go on, and
-- jobs can still be enqueued. A second pause replaces the end and the reason. until null: until it is resumed.
-- Raises JQ001 for an end that has passed.
create or replace function pause_queue(queue text, until timestamptz default null, reason text default null)
  returns void
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select pause('queue', pause_queue.queue, pause_queue.until, pause_queue.reason);
$$;
comment on function pause_queue(text, timestamptz, text) is 'Start no more jobs of this queue, until it is resumed or until a moment.';
