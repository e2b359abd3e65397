-- declared_schedules: return the ids of the schedules that the programs of live workers declare, see declare_schedules.
create or replace function declared_schedules()
  returns setof text
  language sql
  stable
  security definer
  set search_path from current
as $$
  select distinct declared.id
    from workers
   cross join lateral unnest(workers.declares) as declared (id)
   where workers.id in (select live_workers())
   order by declared.id;
$$;
comment on function declared_schedules() is
  'Return the ids of the schedules that the programs of live workers declare.';
