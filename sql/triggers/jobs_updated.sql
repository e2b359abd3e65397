-- jobs_updated: give a job a new place when an update leaves it pending.
--
-- The condition is false for a claim, a completion and a failure, so those updates queue no trigger event. It is short
-- because PostgreSQL parses it for every statement; place_changed_job finds out whether the job has moved.
--
-- The trigger is replaced only if it differs, because that blocks every enqueue and waits for those under way.
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
