-- why_unserved: say that no live worker takes a job's queue or type; null: one does. For why_pending.
create or replace function why_unserved(job jobs)
  returns text
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_alive  bigint;
  v_serve  bigint;
  v_takers bigint;
begin
  select count(*), count(*) filter (where why_unserved.job.type <> all (serving.left_types))
    from serving_workers(why_unserved.job.queue) as serving
    into v_serve, v_takers;
  if v_takers > 0 then
    return null;
  elsif v_serve > 0 then
    return format('No live worker that serves the queue %L has a handler for the type %L (workers that serve it: %s).',
                  why_unserved.job.queue, why_unserved.job.type, v_serve);
  end if;
  select count(*) from live_workers() into v_alive;
  return format('No live worker serves the queue %L (live workers: %s).', why_unserved.job.queue, v_alive);
end;
$$;
comment on function why_unserved(jobs) is 'Private: say that no live worker takes a job''s queue or type; null: one does.';
