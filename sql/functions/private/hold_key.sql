-- hold_key: take a key for this session, or let go of it; nothing when that is so already.
--
-- wait false: only if it is free; the answer says whether the session has it now.
create or replace function hold_key(class regclass, id integer, hold boolean, wait boolean default true)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path from current
as $$
declare
  v_class constant integer := hold_key.class::oid::integer;
  v_held  constant boolean := holds_key(hold_key.class, hold_key.id);
begin
  if v_held and not hold_key.hold then
    perform pg_advisory_unlock(v_class, hold_key.id);
  elsif hold_key.hold and not v_held then
    if not hold_key.wait then
      return pg_try_advisory_lock(v_class, hold_key.id);
    end if;
    perform pg_advisory_lock(v_class, hold_key.id);
  end if;
  return hold_key.hold;
end;
$$;
comment on function hold_key(regclass, integer, boolean, boolean) is
  'Private: take a key for this session, or let go of it.';
