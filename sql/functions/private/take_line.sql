-- take_line: lock the next jobs of one queue, up to max_jobs, in a single walk; this is the fast path of take_places.
--
-- It skips places that another transaction holds.
--
--   ids      the jobs, in order
--   places   their places, which the caller deletes
--   rest     places whose jobs were not locked
--   suspect  the position in ids of the first job whose worker crashed
create or replace function take_line(queue text, max_jobs integer, except_types text[], alone boolean, now timestamptz,
                                     out ids text[], out places tid[], out rest tid[], out suspect integer)
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  select array_agg(found.id order by found.lane, found.seq) filter (where found.id is not null),
         array_agg(found.tid order by found.lane, found.seq) filter (where found.id is not null),
         array_agg(found.tid) filter (where found.id is null),
         array_position(array_agg(found.crashes > 0 order by found.lane, found.seq) filter (where found.id is not null), true)
    from (select place.*, job.*
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
             select jobs.id, jobs.crashes
               from jobs
              where jobs.id = place.job_id
                and jobs.status = 'pending' and jobs.queue = take_line.queue collate "C" and jobs.priority = - place.lane
                and (jobs.execute_at is null or jobs.execute_at <= take_line.now)
                and (jobs.expires_at is null or jobs.expires_at > take_line.now)
                and (jobs.crashes = 0 or take_line.alone is distinct from false)
                and jobs.type <> all (take_line.except_types)
                for no key update skip locked) as job on true
           limit take_line.max_jobs) as found
    into ids, places, rest, suspect;
end;
$$;
comment on function take_line(text, integer, text[], boolean, timestamptz) is
  'Private: lock the next jobs of one queue in a single walk; this is the fast path of take_places.';
