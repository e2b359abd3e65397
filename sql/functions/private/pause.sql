-- pause: stop the claims of a queue or of a type of jobs; pause_queue and pause_type call it.
--
-- To pause what is paused replaces the moment, the end and the reason.  paused_by is the setting pgjobq.actor, where an
-- application puts the name of its own user, or else the role of the session.
create or replace function pause(kind text, name text, until timestamptz, reason text)
  returns void
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  if coalesce(pause.name, '') = '' or length(pause.name) > 255 then
    raise exception using errcode = 'JQ001',
      message = format('%s: %L is not the name of a %1$s', pause.kind, left(pause.name, 255)),
      hint    = 'Use a name of 1 to 255 characters.';
  elsif pause.until <= clock_timestamp() then
    raise exception using errcode = 'JQ001',
      message = format('until: %s has passed', pause.until),
      hint    = 'Use a time in the future, or null to pause until it is resumed.';
  end if;
  insert into pauses (kind, name, paused_at, paused_until, paused_by, reason)
  values (pause.kind, pause.name, clock_timestamp(), nullif(pause.until, 'infinity'),
          coalesce(nullif(current_setting('pgjobq.actor', true), ''), session_user), pause.reason)
  on conflict on constraint pauses_pkey
  do update set paused_at    = excluded.paused_at,
                paused_until = excluded.paused_until,
                paused_by    = excluded.paused_by,
                reason       = excluded.reason;
  perform note_action('pause', pause.kind || ' ' || pause.name, pause.reason, null);
  if pause.until is not null then
    -- A worker that falls asleep again wakes at that moment, see next_due.
    perform notify_workers(case when pause.kind = 'queue' then array[pause.name] end);
  end if;
end;
$$;
comment on function pause(text, text, timestamptz, text) is
  'Private: stop the claims of a queue or of a type of jobs.';
