-- willing_queues: those of the queues, in the order given, that gave all they were asked for.
--
-- names and jobs are parallel: what each was asked for; ids: what all of them gave.  A queue that
-- gave less has no more that nobody holds.
create or replace function willing_queues(queues text[], names text[], jobs integer[], ids text[])
  returns text[]
  language sql
  stable
  security definer
  set search_path from current
  set enable_seqscan = off
as $$
  select coalesce(array_agg(line.queue order by line.nth), '{}')
    from unnest(willing_queues.queues) with ordinality as line (queue, nth)
    left join unnest(willing_queues.names, willing_queues.jobs) as asked (queue, jobs) on asked.queue = line.queue
    left join (select jobs.queue, count(*) as jobs
                 from jobs
                where jobs.id = any (willing_queues.ids)
                group by jobs.queue) as given on given.queue = line.queue
   where coalesce(asked.jobs, 0) <= coalesce(given.jobs, 0);
$$;
comment on function willing_queues(text[], text[], integer[], text[]) is
  'Private: those of the queues that gave all they were asked for.';
