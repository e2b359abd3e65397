-- without_paused: take the queues and types that are paused at this moment out of what a claim asks for.
--
-- queues: those asked for; null: all, which is answered with their names.  except_types: the types that are not wanted;
-- the paused ones are added.
create or replace function without_paused(inout queues text[], inout except_types text[], now timestamptz)
  language plpgsql
  stable
  set search_path from current
as $$
#variable_conflict use_column
begin
  queues := array(
    select asked.queue
      from unnest(coalesce(without_paused.queues, array(select ready_queues()))) as asked (queue)
     where not exists (select from pauses
                        where pauses.kind = 'queue' and pauses.name = asked.queue collate "C"
                          and (pauses.paused_until is null or pauses.paused_until > without_paused.now)));
  except_types := without_paused.except_types || array(
    select pauses.name
      from pauses
     where pauses.kind = 'type' and (pauses.paused_until is null or pauses.paused_until > without_paused.now));
end;
$$;
comment on function without_paused(text[], text[], timestamptz) is
  'Private: take the queues and types that are paused out of what a claim asks for.';
