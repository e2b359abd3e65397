-- new_job_id: a fresh UUID version 7 as text: 48 bits of milliseconds, then random.
--
-- The time, as twelve hexadecimal digits, stands before the last 74 random bits and the variant
-- of a random UUID (version 4).  PostgreSQL 18 has uuidv7(); this one serves 15 and later alike.
-- Without a search_path of its own, and with every name and operator qualified instead: so PostgreSQL can
-- inline it, which halves its cost.
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
comment on function new_job_id() is 'A fresh UUID version 7 as text.';
