-- Settle starts that their workers still hold. ARGV: rows of the outcome (completed, failed, retried or released), id,
-- claim, worker, delay, the error after '=', and the result or ''. Returns the numbers, from 0, of the rows whose starts
-- were lost. A start that was settled in the same way before is not lost.
redis.call('INCRBY', P .. 'seq', 0)
local becomes = {completed = 'completed', failed = 'failed', retried = 'pending', released = 'pending'}
local lost = {}

local function settle(id, job, what, worker, delay, error, result, mark)
  redis.call('SREM', P .. 'held:' .. worker, id)
  if what == 'completed' then
    set(id, 'status', 'completed', 'finished_at', whole(NOW), 'settled', mark)
    if result ~= '' then set(id, 'result', result) end
    if job[F.error] then redis.call('HDEL', key(id), 'error') end
    if job[F.crashes] then redis.call('HDEL', key(id), 'crashes') end
    move(id, job, 'completed')
  elseif what == 'failed' then
    clear(id, job)
    fail(id, job, string.sub(error, 2), 'settled', mark)
  elseif what == 'retried' then
    local due = NOW + delay
    clear(id, job)
    put_in_line(id, job, due, 'execute_at', whole(due), 'settled', mark)
    if error ~= '' then set(id, 'error', string.sub(error, 2)) end
  else
    local attempts = whole(job[F.attempts] - 1)
    if tonumber(delay) > 0 then
      local due = NOW + delay
      put_in_line(id, job, due, 'attempts', attempts, 'execute_at', whole(due), 'settled', mark)
    else
      put_in_line(id, job, tonumber(job[F.due]), 'attempts', attempts, 'settled', mark)
    end
  end
end

for n, row in ipairs(ARGV) do
  local what, id, claim, worker, delay, error, result = unpack(split(row))
  local mark = claim .. '/' .. what
  local job = load(id)
  if job and job[F.status] == 'running' and job[F.claim] == claim then
    settle(id, job, what, worker, delay, error, result, mark)
  elseif not job or job[F.settled] ~= mark or job[F.status] ~= becomes[what] then
    lost[#lost + 1] = n - 1
  end
end
ring_for_arrivals()
return lost
