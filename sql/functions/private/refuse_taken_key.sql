-- refuse_taken_key: raise JQ008 if holder, an unfinished job, has the unique key of this job.
create or replace function refuse_taken_key(holder text, id text)
  returns void
  language plpgsql
  stable
  set search_path from current
as $$
begin
  if refuse_taken_key.holder is not null then
    raise exception using errcode = 'JQ008',
      message = format('unique_key: the unfinished job %s has the key %L of this job', refuse_taken_key.holder,
                       (select jobs.unique_key from jobs where jobs.id = refuse_taken_key.id collate "C")),
      hint    = 'Retry this job when that job has ended, or cancel that job first.';
  end if;
end;
$$;
comment on function refuse_taken_key(text, text) is
  'Private: raise JQ008 if holder, an unfinished job, has the unique key of this job.';
