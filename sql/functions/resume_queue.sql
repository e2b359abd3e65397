-- resume_queue: start jobs of this queue again. Returns false if it was not paused.
create or replace function resume_queue(queue text)
  returns boolean
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select resume('queue', resume_queue.queue);
$$;
comment on function resume_queue(text) is 'Start jobs of this queue again; false when it was not paused.';
