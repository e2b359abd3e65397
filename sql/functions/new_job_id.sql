-- new_job_id: return a new UUID version 7 as text.
--
-- The first twelve hexadecimal digits are the time in milliseconds. The variant and the last 74 random bits come from a
-- random UUID (version 4). PostgreSQL 18 has uuidv7(); this function works on PostgreSQL 15 and later.
--
-- Without a search_path of its own, this function can be inlined, which halves its cost. Every name and operator in it
-- is therefore qualified.
create or replace function new_job_id()
  returns text
  language sql
  volatile
  parallel safe
as $$
  select pg_catalog.overlay(
           pg_catalog.lpad(pg_catalog.to_hex(
             pg_catalog.floor(
               pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) operator(pg_catalog.*) 1000)::bigint), 12, '0'),
           '-', 9, 0)
         operator(pg_catalog.||) '-7'
         operator(pg_catalog.||) pg_catalog.substr(pg_catalog.gen_random_uuid()::text, 16);
$$;
comment on function new_job_id() is 'Return a new UUID version 7 as text.';
