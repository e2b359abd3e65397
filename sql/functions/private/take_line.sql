-- take_line: lock the next max_jobs jobs of one queue, in a single walk; the quick way of take_places.
--
-- Places and jobs that another transaction holds are passed over.  ids: the jobs, in order; places: their places, which
-- the caller takes out of the line.  orphans: places whose jobs seem not to be claimable, see drop_orphans.  suspect:
-- where the first job whose worker crashed stands among all that were found; it is taken only if alone is null.
create or replace function take_line(queue text, max_jobs integer, except_types text[], alone boolean, now timestamptz,
                                     out ids text[], out places tid[], out orphans tid[], out suspect integer)
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  select coalesce(array_agg(found.id order by found.lane, found.seq) filter (where found.id is not null), '{}'),
         array_agg(found.tid) filter (where found.id is not null),
         array_agg(found.tid) filter (where found.id is null and found.stays is null),
         array_position(array_agg(found.stays order by found.lane, found.seq), 'suspect')
    from (select place.*, job.id, kept.stays
            from (select edge.lane, edge.seq, lead(edge.lane, 1, 2147483649) over (order by edge.lane, edge.seq) as beyond
                    from (select -2147483649, 0
                          union all
                          select floors.lane, floors.seq - 1 from floors where floors.queue = take_line.queue collate "C")
                      as edge (lane, seq)) as stretch
           cross join lateral (
             select ready.ctid as tid, ready.lane, ready.seq, ready.job_id
               from ready
              where ready.queue = take_line.queue collate "C"
                and (ready.lane, ready.seq) > (stretch.lane, stretch.seq)
                and ready.lane < stretch.beyond
              order by ready.lane, ready.seq
                for update skip locked) as place
            left join lateral (
             select jobs.id
               from jobs
              where jobs.id = place.job_id
                and jobs.status = 'pending' and jobs.queue = take_line.queue collate "C" and jobs.priority = - place.lane
                and (jobs.execute_at is null or jobs.execute_at <= take_line.now)
                and (jobs.crashes = 0 or take_line.alone is null) and jobs.type <> all (take_line.except_types)
                for no key update skip locked) as job on true
            left join lateral (
             select case when jobs.type = any (take_line.except_types) then 'excepted'
                         when jobs.crashes > 0 then 'suspect' else 'held' end as stays
               from jobs
              where job.id is null and jobs.id = place.job_id
                and jobs.status = 'pending' and jobs.queue = take_line.queue collate "C" and jobs.priority = - place.lane
                and (jobs.execute_at is null or jobs.execute_at <= take_line.now)
             offset 0) as kept on true
           where kept.stays is distinct from 'held'
           limit take_line.max_jobs) as found
    into ids, places, orphans, suspect;
end;
$$;
comment on function take_line(text, integer, text[], boolean, timestamptz) is
  'Private: lock the next jobs of one queue, in a single walk; the quick way of take_places.';
