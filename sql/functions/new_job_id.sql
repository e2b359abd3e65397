-- new_job_id: a fresh UUID version 7 as text: 48 bits of milliseconds, then random.
--
-- A random UUID (version 4) gets the time over its first six bytes, and its
-- version nibble turned from 0100 to 0111 (bits 52 and 53).  PostgreSQL 18 has
-- uuidv7(); this one serves 15 and later alike.
create or replace function new_job_id()
  returns text
  language sql
  volatile
  parallel safe
  set search_path from current
as $$
  select encode(
           set_bit(set_bit(
             overlay(uuid_send(gen_random_uuid())
                     placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                     from 1 for 6),
             52, 1), 53, 1),
           'hex')::uuid::text;
$$;
comment on function new_job_id() is 'A fresh UUID version 7 as text.';
