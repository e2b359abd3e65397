-- filter_text: describe the jobs that a change of many is for, for the view actions.
create or replace function filter_text(queue text, type text, unique_key text, fingerprint text, failed_since timestamptz,
                                       failed_until timestamptz, created_before timestamptz)
  returns text
  language sql
  stable
  set search_path from current
as $$
  select 'jobs: ' || concat_ws(', ', 'queue ' || filter_text.queue, 'type ' || filter_text.type,
                               'unique key ' || filter_text.unique_key, 'fingerprint ' || filter_text.fingerprint, 'failed since ' || filter_text.failed_since,
                               'failed until ' || filter_text.failed_until, 'created before ' || filter_text.created_before);
$$;
comment on function filter_text(text, text, text, text, timestamptz, timestamptz, timestamptz) is
  'Private: describe the jobs that a change of many is for.';
