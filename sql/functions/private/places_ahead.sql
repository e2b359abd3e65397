-- places_ahead: count the places in ready that are ahead of a pending job in its queue, up to 10,000.
--
-- A place counts even if its job was cancelled. The jobs themselves are not read.
--
--   higher   places of jobs of a higher priority
--   earlier  places of jobs of the same priority that came first
--   more     whether there may be more
--   placed   whether the job has a place in line; true if more than 10,000 places would have to be read
create or replace function places_ahead(job jobs, out higher bigint, out earlier bigint, out more boolean, out placed boolean)
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_lane constant bigint := - places_ahead.job.priority::bigint;
  v_line record;
  v_last bigint;
begin
  higher := 0; earlier := 0; more := false;
  -- This comes before ready, because a place moves from scheduled to ready while the job stays unchanged.
  select coalesce(bool_or(place.job_id = places_ahead.job.id and place.queue = places_ahead.job.queue and place.lane = v_lane), false)
         or count(*) = 10000
    from (select scheduled.* from scheduled where scheduled.execute_at = places_ahead.job.execute_at limit 10000) as place
    into placed;
  if placed and places_ahead.job.execute_at > clock_timestamp() then
    return;
  end if;
  v_line := next_places(array[places_ahead.job.queue], -2147483649, 0, 10001);
  with place as materialized (
    select ready.lane, ready.seq, ready.job_id
      from unnest(v_line.places) as given (tid)
     cross join lateral (select place.* from ready as place where place.ctid = given.tid) as ready
  ), own as (
    select min(place.seq) as seq from place where place.lane = v_lane and place.job_id = places_ahead.job.id
  )
  select count(*) filter (where place.lane < v_lane),
         count(*) filter (where place.lane = v_lane and (own.seq is null or place.seq < own.seq)),
         v_line.reached is not null and min(own.seq) is null, max(place.lane), placed or min(own.seq) is not null
    from place cross join own
    into higher, earlier, more, v_last, placed;
  more := more and v_last <= v_lane;
  -- A job that was claimed or changed meanwhile has lost its place for good reason.
  placed := placed or more or not exists (
    select from jobs
     where jobs.id = places_ahead.job.id and jobs.status = 'pending' and jobs.updated_at = places_ahead.job.updated_at);
end;
$$;
comment on function places_ahead(jobs) is
  'Private: count the places in ready that are ahead of a pending job in its queue, up to 10,000.';
