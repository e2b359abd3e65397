-- check_redrive: raise the error that says what is wrong with the arguments of retry_jobs, if anything is.
create or replace function check_redrive(filters text[], max_jobs integer, spread interval, data_patch jsonb)
  returns void
  language plpgsql
  immutable
  set search_path from current
as $$
begin
  if array_to_string(check_redrive.filters, '') = '' then
    raise exception using errcode = 'JQ001',
      message = 'queue: queue, type, fingerprint, failed_since and failed_until are all null',
      hint    = 'Say which failed jobs to retry; to retry all of them, use failed_until => now().';
  elsif check_redrive.max_jobs < 1 then
    raise exception using errcode = 'JQ001',
      message = format('max_jobs: %s is not a positive number', check_redrive.max_jobs),
      hint    = 'Use 1 or more, or null for all.';
  elsif not coalesce(check_redrive.spread between interval '0' and interval '100 years', false) then
    raise exception using errcode = 'JQ001',
      message = format('spread: %s is not a duration', coalesce(check_redrive.spread::text, 'null')),
      hint    = 'Use an interval from 0 to 100 years.';
  elsif jsonb_typeof(check_redrive.data_patch) <> 'object' then
    raise exception using errcode = 'JQ001',
      message = format('data_patch: is a JSON %s, not an object', jsonb_typeof(check_redrive.data_patch)),
      hint    = 'Use a JSON object with the keys of data to set, or null.';
  end if;
end;
$$;
comment on function check_redrive(text[], integer, interval, jsonb) is
  'Private: raise the error that says what is wrong with the arguments of retry_jobs, if anything is.';
