-- Places a job in line again.  The condition is false for a claim and for every settling but a
-- retry: those updates queue no trigger.  It is short, because PostgreSQL reads it again for every
-- statement: what has moved is told by the function.
--
-- Only when it differs: to replace a trigger locks out every enqueue, and waits for those under way.
do $$
begin
  if exists (
    select from pg_trigger
     where pg_trigger.tgrelid = 'jobs'::regclass
       and pg_trigger.tgenabled in ('O', 'A')
       and pg_get_triggerdef(pg_trigger.oid, true) =
           'CREATE TRIGGER jobs_updated AFTER UPDATE ON jobs FOR EACH ROW'
           ' WHEN (new.status::text = ''pending''::text) EXECUTE FUNCTION place_changed_job()')
  then
    return;
  end if;
  create or replace trigger jobs_updated
    after update on jobs
    for each row
    when (new.status = 'pending')
    execute function place_changed_job();
end;
$$;
