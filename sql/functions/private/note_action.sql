-- note_action: record what an operator did. The view actions shows it.
--
-- Also stores the role of the session, and the setting pgjobq.actor, where an application puts the name of its own user.
--
--   target     such as "job 42" or "queue mail"
--   jobs       how many jobs it changed; null if that does not apply
--   continued  This is a batch that continues the last one. Its jobs are added to the row of that batch.
create or replace function note_action(action text, target text, reason text, jobs bigint default 1,
                                       continued boolean default false)
  returns void
  language plpgsql
  volatile
  set search_path from current
as $$
declare
  v_actor constant text := nullif(current_setting('pgjobq.actor', true), '');
begin
  if note_action.continued then
    update action_log
       set jobs = action_log.jobs + note_action.jobs
     where action_log.id = (
             select last.id
               from action_log as last
              where (last.role, last.action, last.target) = (session_user::text, note_action.action, note_action.target)
                and last.actor is not distinct from v_actor
                and last.reason is not distinct from note_action.reason
              order by last.id desc
              limit 1
                for no key update skip locked);
    if found then
      return;
    end if;
  end if;
  insert into action_log (role, actor, action, target, jobs, reason)
  values (session_user, v_actor, note_action.action, left(note_action.target, 1000), note_action.jobs, note_action.reason);
end;
$$;
comment on function note_action(text, text, text, bigint, boolean) is 'Private: record what an operator did.';
