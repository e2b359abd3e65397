-- lock_class: the class of each kind of advisory lock that pgjobq takes, the first of the lock's two numbers.
--
-- The second number is a worker's id, or 0.  Each class is the oid of a table of the schema, so that two schemas in one
-- database do not share a lock.  The locks are the keys by which a worker tells its state (see set_worker_state):
--
--   alive       id  the worker lives
--   asleep      id  it sleeps: notify it                     0  shared by all that sleep or poll: look who it is
--   polling     id  it looks for jobs by itself              0  one that polls, serves every queue and is not busy
--   busy        id  it runs jobs: notify others first
--   pruning         held by prune_jobs for the current minute
--
-- Without a search_path of its own, so that PostgreSQL can put it in line; its callers have one.
create or replace function lock_class(key text)
  returns integer
  language sql
  immutable
as $$
  select (case lock_class.key when 'alive'   then 'workers'::regclass
                              when 'asleep'  then 'doorbell'::regclass
                              when 'polling' then 'ready'::regclass
                              when 'busy'    then 'claims'::regclass
                              when 'pruning' then 'jobs'::regclass end)::oid::integer;
$$;
comment on function lock_class(text) is 'Private: the class of each kind of advisory lock that pgjobq takes.';
