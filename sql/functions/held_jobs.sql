-- held_jobs: return which of these jobs another transaction holds, and lock the others.
--
-- The locks last until the end of the caller's transaction. If a settle of many jobs fails because one of them is held,
-- call this and settle the free jobs in the same transaction, and settle the held jobs later.
create or replace function held_jobs(ids text[])
  returns setof text
  language plpgsql
  volatile
  security definer
  set search_path from current
  set plan_cache_mode = force_generic_plan
  set jit = off
  set enable_seqscan = off
as $$
declare
  v_free text[] collate "C";
begin
  v_free := array(
    select free.id
      from (select jobs.id from jobs where jobs.id = any (held_jobs.ids collate "C") for update skip locked) as free);
  return query
  select jobs.id
    from jobs
   where jobs.id = any (held_jobs.ids collate "C")
     and jobs.id <> all (v_free);
end;
$$;
comment on function held_jobs(text[]) is
  'Return which of these jobs another transaction holds, and lock the others until the end of this transaction.';
