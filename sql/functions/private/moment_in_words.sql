-- moment_in_words: write a moment, with its distance from now: 2026-11-25 09:00:00+01 (in 5 minutes).
create or replace function moment_in_words(at timestamptz)
  returns text
  language sql
  volatile
  set search_path from current
as $$
  select to_char(moment_in_words.at, 'YYYY-MM-DD HH24:MI:SSOF')
         || format(case when away.seconds > 0 then ' (in %s)' else ' (%s ago)' end, span.told)
    from (select extract(epoch from moment_in_words.at) - extract(epoch from clock_timestamp())) as away (seconds)
   cross join lateral (
     select case when abs(away.seconds) < 1      then 'less than a second'
                 when abs(away.seconds) < 1.5    then '1 second'
                 when abs(away.seconds) < 120    then round(abs(away.seconds)) || ' seconds'
                 when abs(away.seconds) < 7200   then round(abs(away.seconds) / 60) || ' minutes'
                 when abs(away.seconds) < 172800 then round(abs(away.seconds) / 3600) || ' hours'
                 else round(abs(away.seconds) / 86400) || ' days' end) as span (told);
$$;
comment on function moment_in_words(timestamptz) is 'Private: write a moment, with its distance from now.';
