-- failures: the failed jobs, grouped by their fingerprint. It reads every failed job, which takes seconds for a million.
create or replace view failures as
select kind.fingerprint, sample.type, error_class(sample.error) as error_class, error_line(sample.error) as message,
       kind.jobs, kind.first_failed_at, kind.last_failed_at, kind.sample_id
  from (select coalesce(jobs.fingerprint, fingerprint(jobs.type, jobs.error)) as fingerprint, count(*) as jobs,
               min(jobs.failed_at) as first_failed_at, max(jobs.failed_at) as last_failed_at, max(jobs.id) as sample_id
          from jobs
         where jobs.failed_at is not null and jobs.status = 'failed'
         group by 1) as kind
 cross join lateral (
   select jobs.type, jobs.error from jobs where jobs.id = kind.sample_id
   offset 0) as sample;
comment on view failures is 'The failed jobs, grouped by their fingerprint: the type, and the error without numbers, ids and quoted strings.';
