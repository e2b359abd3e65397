-- reject_job: raise the error that says what is wrong with a job; return false if nothing is wrong.
create or replace function reject_job(id text, type text, queue text, status text, data jsonb, max_data_bytes bigint)
  returns boolean
  language plpgsql
  stable
  security definer
  set search_path from current
as $$
declare
  v_bytes integer;
begin
  if length(reject_job.id) not between 1 and 255 then
    raise exception using errcode = 'JQ001',
      message = format('job_id: has %s characters', length(reject_job.id)),
      hint    = 'Use 1 to 255 characters, or null for a new id.';
  elsif length(reject_job.type) not between 1 and 255 then
    raise exception using errcode = 'JQ001',
      message = format('type: has %s characters', length(reject_job.type)),
      hint    = 'Use the name of a handler, 1 to 255 characters.';
  elsif length(reject_job.queue) not between 1 and 255 then
    raise exception using errcode = 'JQ001',
      message = format('queue: has %s characters', length(reject_job.queue)),
      hint    = 'Use the name of a queue, 1 to 255 characters.';
  elsif reject_job.status = 'running' then
    raise exception using errcode = 'JQ001',
      message = 'status: a new job cannot be running',
      hint    = 'Insert the job as pending; claim_jobs starts it.';
  elsif jsonb_typeof(reject_job.data) <> 'object' then
    raise exception using errcode = 'JQ001',
      message = format('data: is a JSON %s, not an object', jsonb_typeof(reject_job.data)),
      hint    = 'Use a JSON object whose keys are the handler''s arguments.';
  end if;
  v_bytes := octet_length(reject_job.data::text);
  if v_bytes > reject_job.max_data_bytes then
    raise exception using errcode = 'JQ001',
      message = format('data: has %s bytes, more than pgjobq.max_data_bytes = %s', v_bytes, reject_job.max_data_bytes),
      hint    = 'Store large values elsewhere and enqueue a reference to them, or raise the setting with alter database.';
  end if;
  return false;
end;
$$;
comment on function reject_job(text, text, text, text, jsonb, bigint) is
  'Private: raise the error that says what is wrong with a job, if anything is.';
