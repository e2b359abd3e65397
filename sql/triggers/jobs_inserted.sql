-- jobs_inserted: give new jobs their places, once for each statement, whatever inserts them.
--
-- The trigger is replaced only if it differs, because that blocks every enqueue and waits for those under way.
do $$
begin
  if exists (
    select from pg_trigger
     where pg_trigger.tgrelid = 'jobs'::regclass
       and pg_trigger.tgenabled in ('O', 'A')
       and pg_get_triggerdef(pg_trigger.oid, true) =
           'CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs REFERENCING NEW TABLE AS new_jobs'
           ' FOR EACH STATEMENT EXECUTE FUNCTION place_new_jobs()')
  then
    return;
  end if;
  create or replace trigger jobs_inserted
    after insert on jobs
    referencing new table as new_jobs
    for each statement
    execute function place_new_jobs();
end;
$$;
