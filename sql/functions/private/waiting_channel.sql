-- waiting_channel: return the channel on which a session hears of the jobs for which it waits.
create or replace function waiting_channel(waiter integer)
  returns text
  language sql
  stable
  set search_path from current
as $$
  select format('pgjobq:wait:%s:%s', lock_class('waiting'), waiting_channel.waiter);
$$;
comment on function waiting_channel(integer) is
  'Private: return the channel on which a session hears of the jobs for which it waits.';
