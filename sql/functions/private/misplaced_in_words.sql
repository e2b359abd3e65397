-- misplaced_in_words: the words with which why_job reports a pending job that has no place in line.
create or replace function misplaced_in_words()
  returns text
  language sql
  immutable
  set search_path from current
as $$
  select 'it has no place in line, so no worker finds it; repair_jobs (pgjobq repair) gives it one';
$$;
comment on function misplaced_in_words() is 'Private: the words for a pending job that has no place in line.';
