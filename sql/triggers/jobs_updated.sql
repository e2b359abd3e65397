-- Places a job in line again.  The condition is false for a claim and for every settling but a
-- retry: those updates queue no trigger.  It is short, for PostgreSQL reads it anew for every
-- statement: what has moved is told by the function.
create or replace trigger jobs_updated
  after update on jobs
  for each row
  when (new.status = 'pending')
  execute function place_changed_job();
