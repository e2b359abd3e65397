-- public: put a thin enqueue_job into the schema public, so that
-- select enqueue_job('send_email', '{"to": "a@b.c"}') works with any search_path.
--
-- Its body is bound to the enqueue_job of this schema when it is created, and falls with it;
-- PostgreSQL puts that one in its place when it plans.  Left alone, with a notice, when public
-- has another one already or may not be written.
do $$
declare
  v_ours  constant regprocedure := 'enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz)';
  v_there regprocedure;
begin
  if current_schema() = 'public' then
    return;
  end if;
  -- Another that takes the same arguments, or the first of them: calls could mean either.
  select there.oid
    from pg_proc as ours
    join pg_proc as there on there.proname = 'enqueue_job' and there.pronamespace = to_regnamespace('public')
                         and starts_with(ours.proargtypes::text || ' ', there.proargtypes::text || ' ')
   where ours.oid = v_ours
     and not exists (select from pg_depend
                       join pg_proc as called on called.oid = pg_depend.refobjid
                      where (pg_depend.classid, pg_depend.objid, pg_depend.refclassid)
                            = ('pg_proc'::regclass, there.oid, 'pg_proc'::regclass)
                        and called.pronamespace = ours.pronamespace
                        -- To replace a function leaves it with its owner, who could change it later.
                        and there.proowner = ours.proowner
                        -- A user's own may call this schema's, too.
                        and obj_description(there.oid, 'pg_proc') like '%Calls the enqueue_job of pgjobq''s schema.')
   limit 1
    into v_there;
  if v_there is not null then
    raise notice 'public.enqueue_job exists and is not this schema''s: left alone. Call %.enqueue_job.', quote_ident(current_schema());
    return;
  end if;
  create or replace function public.enqueue_job(type text, data jsonb default '{}', priority bigint default 5,
                                                execute_at timestamptz default null, max_retries integer default 3,
                                                queue text default 'default', job_id text default null,
                                                unique_key text default null, unique_while text default null,
                                                unique_for interval default null, on_conflict text default null,
                                                debounce_ceiling interval default null,
                                                expires_at timestamptz default null)
    returns text
    volatile
  begin atomic
    select enqueue_job(enqueue_job.type, enqueue_job.data, enqueue_job.priority, enqueue_job.execute_at,
                       enqueue_job.max_retries, enqueue_job.queue, enqueue_job.job_id, enqueue_job.unique_key,
                       enqueue_job.unique_while, enqueue_job.unique_for, enqueue_job.on_conflict,
                       enqueue_job.debounce_ceiling, enqueue_job.expires_at);
  end;
  comment on function public.enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz) is
    'Add one job in the caller''s transaction; returns its id.  Calls the enqueue_job of pgjobq''s schema.';
  revoke execute on function public.enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz) from public;
exception when insufficient_privilege then
  raise notice 'public.enqueue_job: no right to create it in schema public. Call %.enqueue_job, or have an owner of public install it.', quote_ident(current_schema());
end;
$$;
