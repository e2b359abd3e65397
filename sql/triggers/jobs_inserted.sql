-- Places new jobs in line: once a statement, whoever inserts.
create or replace trigger jobs_inserted
  after insert on jobs
  referencing new table as new_jobs
  for each statement
  execute function place_new_jobs();
