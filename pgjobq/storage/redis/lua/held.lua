-- Return the jobs that a worker holds, without their data. ARGV: worker.
local jobs = {}
for _, id in ipairs(redis.call('SMEMBERS', P .. 'held:' .. ARGV[1])) do
  local job = load(id)
  if job and job[F.status] == 'running' and job[F.worker_id] == ARGV[1] then
    job[F.data] = '{}'
    jobs[#jobs + 1] = packed(id, job)
  end
end
return jobs
