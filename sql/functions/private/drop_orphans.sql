-- drop_orphans: delete those of these places in ready whose jobs may not be claimed.
--
-- First it cancels the jobs that have expired. A job that another transaction holds is left to the next claim.
--
-- A place is an orphan if its job was deleted, cancelled, expired, changed or postponed manually, or was claimed
-- through another place. Deleting it loses nothing, because whatever made the job claimable elsewhere gave it a place
-- there. The place of a job that is only not due yet is deleted if the job has a place in scheduled, which it may lack
-- if a clock was set back.
--
--   dropped  how many places were deleted
--   stay     how many places were not deleted
--   skipped  why a claim did not take some of those that stay: 'held' if another transaction holds the place or the
--            job, 'suspect' if the job's worker crashed, null if only because of except_types
create or replace function drop_orphans(places tid[], except_types text[], out dropped bigint, out stay bigint,
                                        out skipped text)
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_expired text[];
  v_orphans tid[];
  v_seen    bigint;
begin
  with expired as (
    update jobs
       set status = 'cancelled', error = 'expired', claim_id = null,
           finished_at = clock_timestamp(), updated_at = clock_timestamp()
     where jobs.id = any (array(
             select job.id
               from unnest(drop_orphans.places) as given (tid)
              cross join lateral (
                select ready.job_id from ready where ready.ctid = given.tid for update skip locked) as place
              cross join lateral (
                select jobs.id from jobs
                 where jobs.id = place.job_id and jobs.status = 'pending' and jobs.expires_at <= clock_timestamp()
                   for no key update skip locked) as job))
    returning jobs.id
  )
  select array_agg(expired.id) from expired into v_expired;
  if v_expired is not null then
    perform notify_waiters(v_expired);
  end if;
  with found as materialized (
    select place.ctid as tid, job.id, job.crashes, job.type = any (drop_orphans.except_types) as excepted,
           case when job.execute_at > clock_timestamp() then job.execute_at end as later
      from unnest(drop_orphans.places) as given (tid)
     cross join lateral (
       select ready.ctid, ready.* from ready where ready.ctid = given.tid for update skip locked) as place
      left join lateral (
       select jobs.*
         from jobs
        where jobs.id = place.job_id
          and jobs.status = 'pending' and jobs.queue = place.queue and jobs.priority = - place.lane
       offset 0) as job on true
  ), postponed as (
    -- They are joined all at once, by a hash, because very many jobs may have been postponed to one moment.
    select distinct found.id
      from found
      join scheduled on scheduled.job_id = found.id and scheduled.execute_at = found.later
     where scheduled.execute_at = any (array(select distinct found.later from found where found.later is not null))
  ), place as (
    select found.*, found.id is null or postponed.id is not null as orphan
      from found
      left join postponed on postponed.id = found.id
  )
  select coalesce(array_agg(place.tid) filter (where place.orphan), '{}'), count(*),
         case when bool_or(not place.orphan and not place.excepted and place.crashes = 0) then 'held'
              when bool_or(not place.orphan and not place.excepted) then 'suspect' end
    from place
    into v_orphans, v_seen, drop_orphans.skipped;
  delete from ready where ready.ctid = any (v_orphans);
  dropped := cardinality(v_orphans);
  stay := cardinality(drop_orphans.places) - dropped;
  skipped := case when v_seen < cardinality(drop_orphans.places) then 'held' else skipped end;
end;
$$;
comment on function drop_orphans(tid[], text[]) is
  'Private: delete those of these places in ready whose jobs may not be claimed.';
