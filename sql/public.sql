-- public: create a thin enqueue_job in the schema public, so that
-- select enqueue_job('send_email', '{"to": "a@b.c"}') works with any search_path.
--
-- Its body refers to this schema's enqueue_job by its oid, so `drop schema ... cascade` drops both. PostgreSQL inlines
-- it. If public already has another function with this signature, or the installer may not create one there, nothing is
-- changed, and a notice says so.
do $$
declare
  v_ours  constant regprocedure := 'enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text)';
  v_there constant regprocedure := to_regprocedure('public.enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text)');
begin
  if current_schema() = 'public' then
    return;
  elsif v_there is not null
     and not exists (select from pg_depend
                       join pg_proc as ours on ours.oid = pg_depend.refobjid
                       -- A replaced function keeps its owner, which could change it later.
                       join pg_proc as there on there.oid = pg_depend.objid and there.proowner = ours.proowner
                      where (pg_depend.classid, pg_depend.objid) = ('pg_proc'::regclass, v_there)
                        and (pg_depend.refclassid, pg_depend.refobjid) = ('pg_proc'::regclass, v_ours)
                        -- A user's own function may call this schema's enqueue_job, too.
                        and obj_description(v_there, 'pg_proc') like '%Calls the enqueue_job of pgjobq''s schema.') then
    raise notice 'public.enqueue_job exists and does not belong to this schema, so it was not replaced. Call %.enqueue_job instead.', quote_ident(current_schema());
    return;
  end if;
  create or replace function public.enqueue_job(type text, data jsonb default '{}', priority bigint default 5,
                                                execute_at timestamptz default null, max_retries integer default 3,
                                                queue text default 'default', job_id text default null)
    returns text
    volatile
  begin atomic
    select enqueue_job(enqueue_job.type, enqueue_job.data, enqueue_job.priority, enqueue_job.execute_at,
                       enqueue_job.max_retries, enqueue_job.queue, enqueue_job.job_id);
  end;
  comment on function public.enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text) is
    'Add one job in the caller''s transaction; returns its id.  Calls the enqueue_job of pgjobq''s schema.';
  revoke execute on function public.enqueue_job(text, jsonb, bigint, timestamptz, integer, text, text) from public;
exception when insufficient_privilege then
  raise notice 'public.enqueue_job was not created, because role % may not create it. Call %.enqueue_job instead, or migrate as the owner of schema public.', quote_ident(current_user), quote_ident(current_schema());
end;
$$;
