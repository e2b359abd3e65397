-- job_progress: what the last start of each job has reported. A pending job has no row. It is empty after a crash.
create or replace view job_progress as
select progress.job_id, progress.fraction, progress.message, progress.meta, progress.updated_at
  from progress
  join jobs on jobs.id = progress.job_id and jobs.claim_id = progress.claim_id and jobs.status <> 'pending';
comment on view job_progress is 'What the last start of each job has reported with set_progress; a pending job has no row.';
