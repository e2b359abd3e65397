-- place_changed_job: give a job a new place when it becomes pending again, or when it moves while it is pending.
--
-- The change may be a retry, a release, a rescue or a manual update. The job's old place, if it has one, becomes an
-- orphan that a claim deletes.
create or replace function place_changed_job()
  returns trigger
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  if (old.id, old.status, old.queue, old.priority, old.execute_at)
     is not distinct from (new.id, new.status, new.queue, new.priority, new.execute_at) then
    return null;
  -- A manual update of these is checked like an insert, because a claim relies on them.
  elsif (old.id, old.queue) is distinct from (new.id, new.queue) then
    perform reject_job(new.id, new.type, new.queue, new.status, new.data, null);
  end if;
  if new.execute_at > clock_timestamp() then
    insert into scheduled (execute_at, queue, lane, job_id)
    values (new.execute_at, new.queue, - new.priority::bigint, new.id);
  else
    insert into ready (queue, lane, job_id)
    values (new.queue, - new.priority::bigint, new.id);
  end if;
  if not is_held('polling', 0) then
    perform notify_workers(array[new.queue], new.execute_at, types => array[new.type]);
  end if;
  return null;
end;
$$;
comment on function place_changed_job() is
  'Trigger: give a job a new place when it becomes pending again, or when it moves while it is pending.';
