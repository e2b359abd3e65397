-- stop_waiting: end all waits of this session, so that the end of a job costs nothing more. See wait_for_jobs.
create or replace function stop_waiting()
  returns void
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  delete from waits where waits.waiter = pg_backend_pid();
  -- The session holds the key more than once if a transaction that called wait_for_jobs was rolled back.
  while pg_backend_pid() in (select waiters()) loop
    perform pg_advisory_unlock_shared(lock_class('waiting'), 0);
  end loop;
  perform set_config('pgjobq.waits', '', false);
end;
$$;
comment on function stop_waiting() is 'End all waits of this session.';
