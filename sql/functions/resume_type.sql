-- resume_type: start jobs of this type again. Returns false if it was not paused.
create or replace function resume_type(type text)
  returns boolean
  language sql
  volatile
  security definer
  set search_path from current
as $$
  select resume('type', resume_type.type);
$$;
comment on function resume_type(text) is 'Start jobs of this type again; false when it was not paused.';
