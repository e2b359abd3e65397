-- forget_claims: delete those of these claims that have no running job.
create or replace function forget_claims(worker_id integer, claim_ids bigint[])
  returns void
  language plpgsql
  volatile
  set search_path from current
as $$
begin
  delete from claims
   where claims.worker_id = forget_claims.worker_id
     and claims.id = any (forget_claims.claim_ids)
     and (select held.id
            from unnest(claims.job_ids) as held (id)
           cross join lateral (
             select from jobs where jobs.id = held.id and jobs.status = 'running' and jobs.claim_id = claims.id
             offset 0) as job
           limit 1) is null;
end;
$$;
comment on function forget_claims(integer, bigint[]) is 'Private: delete those of these claims that have no running job.';
