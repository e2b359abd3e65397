-- lock_class: return the first of the two numbers of each kind of advisory lock that pgjobq takes.
--
-- It is the oid of a table of the schema, so that two schemas in one database share no lock. The locks are the keys by
-- which a worker shows its state (see set_worker_state), the lock of prune_jobs, and the key of start_waiting:
--
--   kind     second number   what it shows
--   alive    worker's id     the worker lives
--   asleep   worker's id     the worker sleeps: notify it
--            0 (anyone)      shared by all workers that sleep or poll: check which ones do
--   polling  worker's id     the worker claims by itself
--            0 (everything)  one worker polls, serves every queue and is not busy
--   busy     worker's id     the worker runs jobs: notify others first
--   pruning  minute          prune_jobs runs in the current minute
--   waiting  0, shared       sessions that wait for jobs: notify those that waits names
--
-- Without a search_path of its own, this function can be inlined. Its callers have one.
create or replace function lock_class(key text)
  returns integer
  language sql
  immutable
as $$
  select (case lock_class.key when 'alive'   then 'workers'::regclass
                              when 'asleep'  then 'doorbell'::regclass
                              when 'polling' then 'ready'::regclass
                              when 'busy'    then 'claims'::regclass
                              when 'pruning' then 'jobs'::regclass
                              when 'waiting' then 'waits'::regclass end)::oid::integer;
$$;
comment on function lock_class(text) is 'Private: return the first of the two numbers of each kind of advisory lock that pgjobq takes.';
