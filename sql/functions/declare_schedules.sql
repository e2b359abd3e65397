-- declare_schedules: create the schedules that a program declares, and record that a worker declares them.
--
-- declarations is an object: the id of each schedule, and the arguments of create_schedule as an object. A schedule that
-- is missing is created. One that exists is changed only if its declaration is not the one that was applied last, so
-- what an operator has paused or changed stays until the program itself changes. No schedule is deleted.
--
-- worker_id: a registered worker; declared_schedules returns the ids while it lives. Returns a row for each declaration.
-- outcome: created, changed, kept, refused (error says why), or held, if another transaction has locked the schedule.
-- One that is refused or held does not stop the others.
create or replace function declare_schedules(declarations jsonb, worker_id integer default null)
  returns table (id text, outcome text, error text)
  language plpgsql
  volatile
  security definer
  set search_path from current
  set lock_timeout = '500ms'
as $$
#variable_conflict use_column
declare
  v_names constant text[] := '{type,expression,data,time_zone,kind,queue,priority,max_retries,missed,catch_up,overlap,jitter,starts_at,ends_at,enabled}';
  v_given record;
  v_old   schedules;
begin
  update workers
     set declares = array(select jsonb_object_keys(declare_schedules.declarations))
   where workers.id = declare_schedules.worker_id;
  for v_given in
    select given.key as id, given.value as declared from jsonb_each(declare_schedules.declarations) as given order by given.key
  loop
    begin
      id := v_given.id;
      error := null;
      select * from schedules where schedules.id = v_given.id collate "C" into v_old;
      outcome := case when v_old.id is null then 'created' when v_old.declared = v_given.declared then 'kept' else 'changed' end;
      if outcome <> 'kept' then
        if v_given.declared - v_names <> '{}' then
          raise exception using errcode = 'JQ009', message = format('%s: create_schedule has no such argument',
            (select string_agg(unknown.key, ', ') from jsonb_object_keys(v_given.declared - v_names) as unknown (key)));
        end if;
        perform create_schedule(v_given.id, d.type, d.expression, coalesce(d.data, '{}'), coalesce(d.time_zone, 'UTC'),
                                coalesce(d.kind, 'cron'), coalesce(d.queue, 'default'), coalesce(d.priority, 5),
                                coalesce(d.max_retries, 3), coalesce(d.missed, 'once'), coalesce(d.catch_up, 1000), d.overlap,
                                coalesce(d.jitter, '0'), d.starts_at, d.ends_at, coalesce(d.enabled, true))
           from jsonb_to_record(v_given.declared) as d (
                type text, expression text, data jsonb, time_zone text, kind text, queue text, priority bigint, max_retries integer,
                missed text, catch_up integer, overlap text, jitter interval, starts_at timestamptz, ends_at timestamptz, enabled boolean);
        update schedules set declared = v_given.declared where schedules.id = v_given.id collate "C";
      end if;
    exception
      when lock_not_available then
        outcome := 'held';
      when others then
        outcome := 'refused';
        error := sqlerrm;
    end;
    return next;
  end loop;
end;
$$;
comment on function declare_schedules(jsonb, integer) is
  'Create the schedules that a program declares, and record that a worker declares them; what an operator changed stays.';
