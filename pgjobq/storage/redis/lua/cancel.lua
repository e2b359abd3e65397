-- Cancel a pending or running job. ARGV: id, and the reason, which may be empty. Returns 1, 0 if the job was finished
-- already, or -1 if it does not exist.
redis.call('INCRBY', P .. 'seq', 0)
local id = ARGV[1]
local job = load(id)
if not job then return -1 end
if job[F.status] == 'pending' then
  displace(id, job)
elseif job[F.status] == 'running' then
  redis.call('SREM', P .. 'held:' .. (job[F.worker_id] or ''), id)
else
  return 0
end
set(id, 'status', 'cancelled', 'finished_at', whole(NOW))
if ARGV[2] ~= '' then set(id, 'error', ARGV[2]) end
move(id, job, 'cancelled')
return 1
