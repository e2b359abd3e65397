-- The jobs of workers whose lease ran out -> pending, or failed without tries left; those workers are forgotten.
-- ARGV: jobs at most. Returns how many there were; as many as the most: there may be more.
local dead = redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', whole(NOW))
if #dead == 0 then return 0 end
redis.call('INCRBY', P .. 'seq', 0)
local left, rescued = tonumber(ARGV[1]), 0

local function rescue(id, worker)
  redis.call('SREM', P .. 'held:' .. worker, id)
  local job = load(id)
  if not job or job[F.status] ~= 'running' or job[F.worker_id] ~= worker then return end
  local attempts, tries = tonumber(job[F.attempts]), job[F.max_retries] + 1
  local error = 'worker ' .. worker .. ' stopped or died while it held this job (try ' .. whole(attempts) .. ' of '
    .. whole(tries) .. ')'
  if attempts >= tries then
    fail(id, job, error)
  else
    put_in_line(id, job, NOW, 'error', error)
  end
  rescued = rescued + 1
end

for _, worker in ipairs(dead) do
  local held = redis.call('SRANDMEMBER', P .. 'held:' .. worker, left)
  for _, id in ipairs(held) do rescue(id, worker) end
  left = left - #held
  if redis.call('EXISTS', P .. 'held:' .. worker) == 1 then break end
  forget_worker(worker)
end
ring_for_arrivals()
return rescued
