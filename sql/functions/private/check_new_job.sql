-- check_new_job: raise the error that says which argument of an enqueue is not allowed; return if all are allowed.
--
-- It leaves to reject_job what a plain insert has to meet, too. enqueue_job makes the checks without options in one
-- expression of its own, and calls this only for the error, because a call costs a part of a single enqueue.
create or replace function check_new_job(type text, data jsonb, priority bigint, execute_at timestamptz, max_retries integer,
                                         queue text, unique_key text, unique_while text, unique_for interval,
                                         on_conflict text, debounce_ceiling interval, expires_at timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_message text;
  v_hint    text;
begin
  if num_nulls(check_new_job.type, check_new_job.data, check_new_job.queue, check_new_job.priority,
               check_new_job.max_retries) > 0 then
    v_message := 'type, data, queue, priority, max_retries: none of these may be null';
    v_hint    := 'Leave an argument out to use its default; type has none.';
  elsif check_new_job.priority not between -2147483648 and 2147483647 then
    v_message := format('priority: %s is out of range', check_new_job.priority);
    v_hint    := 'Use an integer from -2147483648 to 2147483647; higher runs first.';
  elsif check_new_job.max_retries < 0 then
    v_message := format('max_retries: %s is negative', check_new_job.max_retries);
    v_hint    := 'Use 0 or more; 0 allows a single try.';
  elsif not coalesce(isfinite(check_new_job.expires_at), true) then
    v_message := format('expires_at: %s is not a time', check_new_job.expires_at);
    v_hint    := 'Leave it out if the job never expires.';
  elsif check_new_job.expires_at <= clock_timestamp() then
    v_message := format('expires_at: %s is in the past', check_new_job.expires_at);
    v_hint    := 'Use a time in the future, or leave it out if the job never expires.';
  elsif check_new_job.expires_at <= check_new_job.execute_at then
    v_message := format('expires_at: %s is not after execute_at', check_new_job.expires_at);
    v_hint    := 'Use a later time, because the job cannot start before execute_at.';
  elsif check_new_job.unique_key is null
    and num_nonnulls(check_new_job.unique_while, check_new_job.unique_for, check_new_job.on_conflict,
                     check_new_job.debounce_ceiling) > 0 then
    v_message := format('%s: has no meaning without unique_key',
                        case when check_new_job.unique_while is not null then 'unique_while'
                             when check_new_job.unique_for is not null then 'unique_for'
                             when check_new_job.on_conflict is not null then 'on_conflict'
                             else 'debounce_ceiling' end);
    v_hint    := 'Pass a unique_key too, or leave it out.';
  elsif length(check_new_job.unique_key) not between 1 and 255 then
    v_message := format('unique_key: has %s characters', length(check_new_job.unique_key));
    v_hint    := 'Use 1 to 255 characters, or null for a job without a key. Hash a longer key.';
  elsif check_new_job.unique_while not in ('unfinished', 'pending') then
    v_message := format('unique_while: %L is not a choice', check_new_job.unique_while);
    v_hint    := 'Use unfinished or pending; pending does not count a running job.';
  elsif check_new_job.on_conflict not in ('keep', 'replace', 'debounce', 'error') then
    v_message := format('on_conflict: %L is not a choice', check_new_job.on_conflict);
    v_hint    := 'Use keep, replace, debounce or error.';
  elsif not coalesce(isfinite(check_new_job.unique_for) and check_new_job.unique_for > interval '0', true) then
    v_message := format('unique_for: %s is not a duration', check_new_job.unique_for);
    v_hint    := 'Use an interval above 0; it begins when the job that has the key is enqueued.';
  elsif check_new_job.on_conflict = 'debounce' and check_new_job.execute_at is null then
    v_message := 'execute_at: debounce needs it';
    v_hint    := 'Pass the end of the delay, such as now() + interval ''5 s''.';
  elsif check_new_job.debounce_ceiling is not null and check_new_job.on_conflict is distinct from 'debounce' then
    v_message := 'debounce_ceiling: has no meaning without debounce';
    v_hint    := 'Pass on_conflict => ''debounce'', or leave it out.';
  elsif clock_timestamp() + check_new_job.debounce_ceiling < check_new_job.execute_at then
    v_message := format('debounce_ceiling: %s ends before execute_at', check_new_job.debounce_ceiling);
    v_hint    := 'Use an interval that is at least as long as the delay.';
  else
    return;
  end if;
  raise exception using errcode = 'JQ001', message = v_message, hint = v_hint;
end;
$$;
comment on function check_new_job(text, jsonb, bigint, timestamptz, integer, text, text, text, interval, text, interval, timestamptz) is
  'Private: raise the error that says which argument of an enqueue is not allowed, if one is.';
