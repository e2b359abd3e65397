-- complete_with_results: the part of complete_jobs for jobs of which some have results; return how many were completed.
--
-- The settings with which complete_jobs pins its plans apply here, too.
create or replace function complete_with_results(ids text[], claim_ids bigint[], results jsonb[])
  returns integer
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_most constant bigint      := coalesce(nullif(current_setting('pgjobq.max_result_bytes', true), '')::bigint, 1000000);
  v_now  constant timestamptz := clock_timestamp();
  v_large record;
  v_rows  integer;
begin
  select start.id, octet_length(start.result::text) as bytes
    from unnest(complete_with_results.ids, complete_with_results.results) as start (id, result)
   where octet_length(start.result::text) > v_most
   limit 1
    into v_large;
  if found then
    raise exception using errcode = 'JQ001',
      message = format('result: has %s bytes, more than pgjobq.max_result_bytes = %s (job %s)', v_large.bytes, v_most, v_large.id),
      hint    = 'Store large values elsewhere and return a reference to them, or raise the setting with alter database.';
  end if;
  with completed as (
    update jobs
       set status      = 'completed',
           error       = null,
           crashes     = 0,
           finished_at = v_now,
           updated_at  = v_now
      from unnest(complete_with_results.ids collate "C", complete_with_results.claim_ids, complete_with_results.results)
             as start (id, claim_id, result)
     where jobs.id = any (complete_with_results.ids collate "C")
       and jobs.id = start.id
       and jobs.claim_id = start.claim_id
       and jobs.status = 'running'
    returning start.id, start.claim_id, nullif(start.result, 'null') as result
  ), kept as (
    insert into results (job_id, claim_id, result)
    select completed.id, completed.claim_id, completed.result
      from completed
     where completed.result is not null
    on conflict (job_id) do update set claim_id = excluded.claim_id, result = excluded.result
  )
  select count(*) from completed into v_rows;
  return v_rows;
end;
$$;
comment on function complete_with_results(text[], bigint[], jsonb[]) is
  'Private: complete jobs of which some have results; returns how many were completed.';
