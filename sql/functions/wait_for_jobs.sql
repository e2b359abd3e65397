-- wait_for_jobs: have this session notified when these jobs end, and no longer of those in done.
--
-- A job ends when it is completed, failed or cancelled, or when its completion deletes it. Returns the channel to listen
-- on; the payload of a notification is the id of the job. A session waits in these steps, each a transaction of its own:
--
--   1. Call wait_for_jobs, and listen on the channel.
--   2. Call open_transactions('pgjobq.jobs'). Each of these transactions may end a job without a notification.
--   3. Call ended_jobs. Call it again when the transactions of step 2 have ended, when a notification comes, and every few
--      seconds, because a job that is deleted, or changed by a plain update, notifies nothing.
--   4. Call stop_waiting, so that the end of a job costs nothing more.
--
-- The key `waiting` belongs to the session, so this does not work through a transaction pooler.
create or replace function wait_for_jobs(ids text[], done text[] default '{}')
  returns text
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
declare
  v_waiters integer[];
begin
  -- This applies to this transaction only. Waits need not survive a crash of the server.
  perform set_config('synchronous_commit', 'off', true);
  if current_setting('pgjobq.waits', true) is distinct from pg_backend_pid()::text then
    perform pg_advisory_lock_shared(lock_class('waiting'), 0), set_config('pgjobq.waits', pg_backend_pid()::text, false);
    v_waiters := array(select waiters());
    delete from waits
     where waits.ctid = any (array(
             select waits.ctid from waits
              where waits.waiter <> all (v_waiters) or waits.waiter = pg_backend_pid()
                for update skip locked));
  end if;
  delete from waits
   where waits.job_id = any (wait_for_jobs.done collate "C")
     and waits.waiter = pg_backend_pid();
  insert into waits (job_id, waiter)
  select wanted.id, pg_backend_pid() from unnest(wait_for_jobs.ids) as wanted (id);
  return waiting_channel(pg_backend_pid());
end;
$$;
comment on function wait_for_jobs(text[], text[]) is
  'Have this session notified when these jobs end, and no longer of those in done; returns the channel to listen on.';
