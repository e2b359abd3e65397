-- public: create a thin enqueue_job in the schema public, so that
-- select enqueue_job('send_email', '{"to": "a@b.c"}') works with any search_path.
--
-- Its body refers to this schema's enqueue_job by its oid, so `drop schema ... cascade` drops both. PostgreSQL inlines
-- it. If public already has another function with this signature, or the installer may not create one there, nothing is
-- changed, and a notice says so.
do $$
declare
  v_ours  constant regprocedure := 'enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz)';
  v_there regprocedure;
begin
  if current_schema() = 'public' then
    return;
  end if;
  -- Another function whose parameters are the first ones of ours: a call could mean either.
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
                        -- A replaced function keeps its owner, which could change it later.
                        and there.proowner = ours.proowner
                        -- A user's own function may call this schema's enqueue_job, too.
                        and obj_description(there.oid, 'pg_proc') like '%Calls the enqueue_job of pgjobq''s schema.')
   limit 1
    into v_there;
  if v_there is not null then
    raise notice 'public.enqueue_job exists and does not belong to this schema, so it was not replaced. Call %.enqueue_job instead.', quote_ident(current_schema());
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
  raise notice 'public.enqueue_job was not created, because role % may not create it. Call %.enqueue_job instead, or migrate as the owner of schema public.', quote_ident(current_user), quote_ident(current_schema());
end;
$$;
