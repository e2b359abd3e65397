-- why_paused: say who paused a queue or a type, and why; null: it is not paused. For why_pending.
create or replace function why_paused(kind text, name text)
  returns text
  language sql
  volatile
  set search_path from current
as $$
  select format('The %s %L is paused until %s; %s paused it at %s%s.', pauses.kind, pauses.name,
                coalesce(moment_in_words(pauses.paused_until), 'it is resumed'),
                pauses.paused_by, moment_in_words(pauses.paused_at),
                ', because: ' || nullif(rtrim(pauses.reason, '. '), ''))
    from pauses
   where pauses.kind = why_paused.kind collate "C" and pauses.name = why_paused.name collate "C"
     and (pauses.paused_until is null or pauses.paused_until > clock_timestamp());
$$;
comment on function why_paused(text, text) is 'Private: say who paused a queue or a type, and why; null: it is not paused.';
