-- lost_jobs: which of these starts are over.
--
-- ids and claim_ids are parallel.  A worker asks now and then while jobs run long, to
-- stop the handlers of those that were rescued or cancelled.
create or replace function lost_jobs(ids text[], claim_ids bigint[])
  returns setof text
  language sql
  stable
  security definer
  set search_path from current
as $$
  select start.id
    from unnest(lost_jobs.ids collate "C", lost_jobs.claim_ids) as start (id, claim_id)
   where not was_settled(start.id, start.claim_id, 'running');
$$;
comment on function lost_jobs(text[], bigint[]) is 'Which of these starts are over.';
