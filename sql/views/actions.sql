-- actions: what operators did, newest first.
create or replace view actions as
select action_log.at, action_log.role, action_log.actor, action_log.action, action_log.target, action_log.jobs,
       action_log.reason, action_log.id
  from action_log
 order by action_log.id desc;
comment on view actions is 'What operators did, newest first: retry, run now, cancel, pause, resume and edit.';
