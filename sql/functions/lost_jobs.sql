-- lost_jobs: return the ids whose start is over.
--
-- ids and claim_ids are parallel. A worker calls this now and then while jobs run for a long time, to stop the handlers
-- of jobs that were rescued or cancelled.
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
comment on function lost_jobs(text[], bigint[]) is 'Return the ids whose start is over.';
