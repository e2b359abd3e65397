-- job_logs: what handlers have logged. Order by claim_id and seq. Lines of a deleted job of the same id are left out.
create or replace view job_logs as
select log_lines.job_id, log_lines.attempt, log_lines.claim_id, log_lines.seq, log_lines.logged_at, log_lines.level,
       log_lines.logger, log_lines.line
  from log_lines
  join jobs on jobs.id = log_lines.job_id and log_lines.added_at >= jobs.created_at;
comment on view job_logs is 'What handlers with capture_logs have logged; order by claim_id and seq.';
