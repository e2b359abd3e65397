-- last_error: return the beginning of the first line of a job's error, without the full stop at its end; null: no error.
create or replace function last_error(job jobs)
  returns text
  language sql
  immutable
  set search_path from current
as $$
  select nullif(rtrim(left(error_line((last_error.job).error), 300), '. '), '');
$$;
comment on function last_error(jobs) is 'Private: return the beginning of the first line of a job''s error.';
