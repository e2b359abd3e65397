-- Places a job in line again.  The condition is false for a claim and for every
-- settling but a retry: those updates queue no trigger.
create or replace trigger jobs_updated
  after update on jobs
  for each row
  when (new.status = 'pending'
        and (old.status, old.queue, old.priority, old.execute_at)
            is distinct from (new.status, new.queue, new.priority, new.execute_at))
  execute function place_changed_job();
