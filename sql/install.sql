-- Installs or upgrades pgjobq with psql alone:
--   psql -d app -f sql/install.sql                    into the schema pgjobq
--   psql -d app -v schema=jobs -f sql/install.sql     into the schema jobs
--
-- It runs in one transaction, and it is safe to run again. It creates tables once and replaces functions. It runs
-- statements that lock a table only if something differs. `pgjobq migrate` does the same, and retries if a table is in
-- use. `make install-sql` writes this file, so do not edit it.
\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK off
\if :{?schema}
\else
  \set schema pgjobq
\endif

begin isolation level read committed;
set local search_path = pg_catalog, pg_temp;
set local standard_conforming_strings = on;
set local quote_all_identifiers = off;
set local check_function_bodies = off;
set local statement_timeout = 0;
set local pgjobq.schema = :'schema';

\ir server.sql
\ir schema.sql
\ir trust.sql

set local search_path = :"schema", pg_temp;

\ir preflight.sql
\ir renamed.sql
\ir functions/new_job_id.sql

select to_regclass('schema_version') is null as needed \gset
\if :needed
\ir migrations/0001_initial.sql
insert into schema_version (version) values (1);
\endif

select not exists (select from schema_version where version >= 2) as needed \gset
\if :needed
\ir migrations/0002_told.sql
insert into schema_version (version) values (2);
\endif

select not exists (select from schema_version where version >= 3) as needed \gset
\if :needed
\ir migrations/0003_schedules.sql
insert into schema_version (version) values (3);
\endif

select not exists (select from schema_version where version >= 4) as needed \gset
\if :needed
\ir migrations/0004_left.sql
insert into schema_version (version) values (4);
\endif

select not exists (select from schema_version where version >= 5) as needed \gset
\if :needed
\ir migrations/0005_reported.sql
insert into schema_version (version) values (5);
\endif

\ir functions/add_job.sql
\ir functions/add_jobs.sql
\ir functions/add_log_lines.sql
\ir functions/advance_floors.sql
\ir functions/backfill_schedule.sql
\ir functions/call_workers.sql
\ir functions/cancel_channel.sql
\ir functions/cancel_job.sql
\ir functions/cancel_jobs.sql
\ir functions/claim_jobs.sql
\ir functions/complete_jobs.sql
\ir functions/count_jobs.sql
\ir functions/create_schedule.sql
\ir functions/declare_schedules.sql
\ir functions/declared_schedules.sql
\ir functions/delete_schedule.sql
\ir functions/edit_job.sql
\ir functions/enable_schedule.sql
\ir functions/ended_jobs.sql
\ir functions/enqueue_job.sql
\ir functions/enqueue_jobs.sql
\ir functions/error_class.sql
\ir functions/error_line.sql
\ir functions/export_jobs.sql
\ir functions/fail_job.sql
\ir functions/fingerprint.sql
\ir functions/get_job.sql
\ir functions/get_schedule.sql
\ir functions/heartbeat_worker.sql
\ir functions/held_jobs.sql
\ir functions/import_jobs.sql
\ir functions/job_result.sql
\ir functions/leave_types.sql
\ir functions/list_attempts.sql
\ir functions/list_jobs.sql
\ir functions/list_schedules.sql
\ir functions/live_workers.sql
\ir functions/lost_jobs.sql
\ir functions/misplaced_jobs.sql
\ir functions/move_schedule.sql
\ir functions/next_due.sql
\ir functions/next_tick.sql
\ir functions/next_ticks.sql
\ir functions/notifiers_waiting.sql
\ir functions/oldest_jobs.sql
\ir functions/open_transactions.sql
\ir functions/pause_queue.sql
\ir functions/pause_type.sql
\ir functions/promote_jobs.sql
\ir functions/prune_jobs.sql
\ir functions/queue_names.sql
\ir functions/register_worker.sql
\ir functions/release_jobs.sql
\ir functions/release_unknown_jobs.sql
\ir functions/repair_jobs.sql
\ir functions/rescue_jobs.sql
\ir functions/resume_queue.sql
\ir functions/resume_type.sql
\ir functions/retire_worker.sql
\ir functions/retry_job.sql
\ir functions/retry_jobs.sql
\ir functions/run_schedule.sql
\ir functions/set_progress.sql
\ir functions/set_worker_state.sql
\ir functions/stop_waiting.sql
\ir functions/unserved_types.sql
\ir functions/wait_for_job.sql
\ir functions/wait_for_jobs.sql
\ir functions/watch_workers.sql
\ir functions/why_job.sql
\ir functions/private/add_unique_job.sql
\ir functions/private/check_floors.sql
\ir functions/private/check_new_job.sql
\ir functions/private/check_redrive.sql
\ir functions/private/check_schedule.sql
\ir functions/private/check_time_zone.sql
\ir functions/private/complete_with_results.sql
\ir functions/private/cron_days.sql
\ir functions/private/cron_field.sql
\ir functions/private/cron_fields.sql
\ir functions/private/cron_instant.sql
\ir functions/private/cron_match.sql
\ir functions/private/cron_next.sql
\ir functions/private/cron_shift.sql
\ir functions/private/cron_value.sql
\ir functions/private/drop_orphans.sql
\ir functions/private/due_ticks.sql
\ir functions/private/end_pauses.sql
\ir functions/private/enter_doorbell.sql
\ir functions/private/failed_jobs.sql
\ir functions/private/filter_text.sql
\ir functions/private/fire_one_by_one.sql
\ir functions/private/fire_schedules.sql
\ir functions/private/forget_claims.sql
\ir functions/private/forget_jobs.sql
\ir functions/private/give_away_worker.sql
\ir functions/private/give_back_claims.sql
\ir functions/private/held_schedule.sql
\ir functions/private/hold_keys.sql
\ir functions/private/hold_unique_key.sql
\ir functions/private/is_held.sql
\ir functions/private/is_waited.sql
\ir functions/private/last_error.sql
\ir functions/private/lock_class.sql
\ir functions/private/lock_unique_key.sql
\ir functions/private/misplaced_in_words.sql
\ir functions/private/moment_in_words.sql
\ir functions/private/next_places.sql
\ir functions/private/note_action.sql
\ir functions/private/note_attempt.sql
\ir functions/private/notify_waiters.sql
\ir functions/private/notify_workers.sql
\ir functions/private/pause.sql
\ir functions/private/place_changed_job.sql
\ir functions/private/place_new_jobs.sql
\ir functions/private/place_schedule.sql
\ir functions/private/places_ahead.sql
\ir functions/private/ready_lanes.sql
\ir functions/private/ready_queues.sql
\ir functions/private/refuse_taken_key.sql
\ir functions/private/reject_job.sql
\ir functions/private/replace_schedules.sql
\ir functions/private/resume.sql
\ir functions/private/row_holder.sql
\ir functions/private/schedule_next.sql
\ir functions/private/schedule_step.sql
\ir functions/private/schedule_ticks.sql
\ir functions/private/serving_workers.sql
\ir functions/private/sweep_attempts.sql
\ir functions/private/sweep_log_lines.sql
\ir functions/private/sweep_orphans.sql
\ir functions/private/sweep_progress.sql
\ir functions/private/sweep_results.sql
\ir functions/private/sweep_unique_keys.sql
\ir functions/private/take_line.sql
\ir functions/private/take_places.sql
\ir functions/private/take_unique_key.sql
\ir functions/private/tick_id.sql
\ir functions/private/try_unique_key.sql
\ir functions/private/waiters.sql
\ir functions/private/waiting_channel.sql
\ir functions/private/was_settled.sql
\ir functions/private/why_ended.sql
\ir functions/private/why_in_line.sql
\ir functions/private/why_not_due.sql
\ir functions/private/why_paused.sql
\ir functions/private/why_pending.sql
\ir functions/private/why_running.sql
\ir functions/private/why_unknown.sql
\ir functions/private/why_unserved.sql
\ir functions/private/without_paused.sql
\ir ours.sql

set local search_path = pg_temp, :"schema";

select has_database_privilege(current_database(), 'temp') as needed \gset
\if :needed
\ir views/actions.sql
\ir views/failures.sql
\ir views/job_logs.sql
\ir views/job_progress.sql
\ir views/job_stats.sql
\ir views/paused_types.sql
\ir views/queues.sql
\ir views/worker_status.sql
\endif

set local search_path = :"schema", pg_temp;

select exists (
  select from unnest('{actions,failures,job_logs,job_progress,job_stats,paused_types,queues,worker_status}'::text[]) as view (name),
       lateral (values (to_regclass(format('%I.%I', current_schema(), view.name)),
                        to_regclass('pg_temp.' || view.name))) as pair (found, wanted)
   where pair.wanted is null
      or pg_get_viewdef(pair.found) is distinct from pg_get_viewdef(pair.wanted)
      or obj_description(pair.found, 'pg_class') is distinct from obj_description(pair.wanted, 'pg_class')) as needed \gset
\if :needed
\ir views/actions.sql
\ir views/failures.sql
\ir views/job_logs.sql
\ir views/job_progress.sql
\ir views/job_stats.sql
\ir views/paused_types.sql
\ir views/queues.sql
\ir views/worker_status.sql
\endif

select to_regclass('pg_temp.actions') is not null as needed \gset
\if :needed
drop view pg_temp.actions, pg_temp.failures, pg_temp.job_logs, pg_temp.job_progress, pg_temp.job_stats, pg_temp.paused_types, pg_temp.queues, pg_temp.worker_status;
\endif

\ir comments.sql
\ir comments_kept.sql
\ir public.sql
\ir roles.sql

\ir triggers/jobs_inserted.sql
\ir triggers/jobs_updated.sql
\ir stale.sql

commit;
