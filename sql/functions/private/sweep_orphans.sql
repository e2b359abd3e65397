-- sweep_orphans: delete some of the rows that belong to jobs which no longer exist, and actions that are too old.
--
-- Such rows remain when jobs are deleted manually, or as they complete. Each table that keeps rows for jobs has a call
-- here. It waits for nothing.
create or replace function sweep_orphans(max_rows integer)
  returns void
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  perform sweep_unique_keys(sweep_orphans.max_rows);
  perform sweep_attempts(sweep_orphans.max_rows);
  perform sweep_results(sweep_orphans.max_rows);
  perform sweep_progress(sweep_orphans.max_rows);
  perform sweep_log_lines(sweep_orphans.max_rows);
  delete from action_log
   where action_log.id = any (array(
           select old.id
             from (select action_log.id, action_log.at
                     from action_log
                    order by action_log.id
                    limit sweep_orphans.max_rows
                      for update skip locked) as old
            where old.at < clock_timestamp() - coalesce(
                    nullif(current_setting('pgjobq.keep_actions', true), '')::interval, interval '90 days')));
end;
$$;
comment on function sweep_orphans(integer) is
  'Private: delete some of the rows that belong to jobs which no longer exist, and actions that are too old.';
