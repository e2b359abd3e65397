-- list_schedules: return all schedules in the order of their ids, or only those that are enabled.
create or replace function list_schedules(enabled_only boolean default false)
  returns setof schedules
  language sql
  stable
  security definer
  set search_path from current
as $$
  select schedules.*
    from schedules
   where schedules.enabled or not coalesce(list_schedules.enabled_only, false)
   order by schedules.id;
$$;
comment on function list_schedules(boolean) is 'Return all schedules, or only those that are enabled.';
