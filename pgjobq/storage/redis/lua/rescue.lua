-- Make the jobs of workers whose lease has expired pending, or failed if they have crashed too often. Delete those
-- registrations. ARGV: the largest number of jobs, the number of crashes at which a job fails, the length of a lease.
-- Returns a row for each job (worker, worker's name, microseconds since its last renewal, id, crashes), and how many
-- jobs were checked. If this is the largest number, there may be more jobs.
local dead = redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', whole(NOW), 'WITHSCORES')
if #dead == 0 then return {0} end
redis.call('INCRBY', P .. 'seq', 0)
local left, rows = tonumber(ARGV[1]), {0}

local function rescue(id, worker, told)
  redis.call('SREM', P .. 'held:' .. worker, id)
  local job = load(id)
  if not job or job[F.status] ~= 'running' or job[F.worker_id] ~= worker then return end
  local crashes = whole((job[F.crashes] or 0) + 1)
  local error = 'worker ' .. worker .. ' stopped or died while it held this job (try ' .. whole(tries(job)) .. ' of '
    .. whole(job[F.max_retries] + 1) .. ', crash ' .. crashes .. ' of ' .. ARGV[2] .. ')'
  if tonumber(crashes) >= tonumber(ARGV[2]) then
    fail(id, job, error .. '; it failed because of its crashes', 'crashes', crashes)
  else
    put_in_line(id, job, NOW, 'error', error, 'crashes', crashes)
  end
  rows[#rows + 1] = table.concat({told, id, crashes}, '\0')
end

for n = 1, #dead, 2 do
  local worker = dead[n]
  local name = redis.call('HGET', P .. 'worker:' .. worker, 'name') or ''
  local told = table.concat({worker, name, whole(NOW - dead[n + 1] + ARGV[3])}, '\0')
  local held = redis.call('SRANDMEMBER', P .. 'held:' .. worker, left)
  for _, id in ipairs(held) do rescue(id, worker, told) end
  left, rows[1] = left - #held, rows[1] + #held
  if redis.call('EXISTS', P .. 'held:' .. worker) == 1 then break end
  forget_worker(worker)
end
ring_for_arrivals()
return rows
