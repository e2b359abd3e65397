-- resume: end a pause, and notify a worker; resume_queue and resume_type call it.
create or replace function resume(kind text, name text)
  returns boolean
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_paused boolean := false;
begin
  delete from pauses
   where pauses.kind = resume.kind and pauses.name = resume.name collate "C"
  returning pauses.paused_until is null or pauses.paused_until > clock_timestamp()
    into v_paused;
  if found then
    perform note_action('resume', resume.kind || ' ' || resume.name, null, null);
    perform notify_workers(case when resume.kind = 'queue' then array[resume.name] end);
  end if;
  return coalesce(v_paused, false);
end;
$$;
comment on function resume(text, text) is 'Private: end a pause, and notify a worker.';
