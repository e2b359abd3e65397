-- fingerprint: return what the failures of a type are grouped by: 12 hexadecimal digits.
--
-- It is a hash of the type, and of the error's first line without what differs between failures of one kind: quoted
-- strings, and numbers with the hexadecimal digits and hyphens beside them, which are ids, UUIDs and dates. It depends
-- on nothing else, so it is the same in every database and version.
create or replace function fingerprint(type text, error text)
  returns text
  language plpgsql
  immutable
  parallel safe
  set search_path from current
as $$
begin
  return left(encode(sha256(replace(concat(fingerprint.type collate "C", E'\n', left(
           regexp_replace(
             regexp_replace(error_line(fingerprint.error) collate "C", '"[^"]*("|$)|''[^'']*''', '?', 'g'),
             '[0-9a-fA-F-]*[0-9][0-9a-fA-F-]*', '#', 'g'), 200)), E'\\', E'\\\\')::bytea), 'hex'), 12);
end;
$$;
comment on function fingerprint(text, text) is 'Return what the failures of a type are grouped by: 12 hexadecimal digits.';
