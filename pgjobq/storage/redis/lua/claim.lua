-- Claim due jobs for a worker, in order. ARGV: worker, number of this claim, largest number of jobs, the worker's
-- lease, most bytes of data (at least one job is returned), its bell or '', the claim id that identifies the starts,
-- the number of types that it leaves to other workers, these types, and its queues (no queue: all queues).
-- Returns the microseconds until the next scheduled job, or nothing if no job is scheduled, and then the jobs. A worker
-- that gets no job is asleep until its bell rings.
local worker, number, limit, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local most, bell, claim = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local leaves, left = tonumber(ARGV[8]), {}
for n = 9, 8 + leaves do left[ARGV[n]] = true end
local queues = {unpack(ARGV, 9 + leaves)}
local serves = #queues > 0 and queues or {''}
local CHUNK = 64  -- entries to read at once from one of several lines
local PROMOTED = 10000  -- most due jobs that one claim puts in line; more would block the server for too long

-- Register the worker again if it was taken for dead in the meantime. Otherwise no worker would rescue its jobs.
redis.call('ZADD', P .. 'workers', 'NX', whole(NOW + lease), worker)
-- Refuse a claim that arrives after the worker gave it up, because the worker would not know the jobs.
if number <= tonumber(redis.call('HGET', P .. 'worker:' .. worker, 'claim') or 0) then return {''} end
redis.call('HSET', P .. 'worker:' .. worker, 'claim', number)
if bell ~= '' then
  for _, queue in ipairs(serves) do redis.call('SREM', P .. 'asleep:' .. queue, bell) end
end

local due = redis.call('ZRANGEBYSCORE', P .. 'scheduled', '-inf', whole(NOW), 'LIMIT', 0, PROMOTED)
for _, id in ipairs(due) do
  local job = redis.call('HMGET', key(id), 'status', 'queue', 'priority', 'due', 'entry')
  if job[1] == 'pending' and job[5] then line_up(id, job[2], tonumber(job[3]), tonumber(job[4]), job[5]) end
end
if #due > 0 then redis.call('ZREMRANGEBYRANK', P .. 'scheduled', 0, #due - 1) end

local lines = {}
if #queues == 0 then queues = redis.call('SMEMBERS', P .. 'waiting') end
for n, queue in ipairs(queues) do
  lines[n] = {queue = queue, key = P .. 'ready:' .. queue, seen = 0, taken = {}, read = {}, at = 1}
end
local chunk = #lines == 1 and limit or math.min(limit, CHUNK)
if leaves > 0 then chunk = math.max(chunk, CHUNK) end

-- Return the first entry of a line that was not read yet.
local function peek(line)
  if line.at > #line.read then
    line.read = redis.call('ZRANGE', line.key, line.seen, line.seen + chunk - 1, 'WITHSCORES')
    line.at = 1
  end
  line.member = line.read[line.at]
  line.score = line.member and tonumber(line.read[line.at + 1])
  return line.member
end

local function first_line()
  local best
  for _, line in ipairs(lines) do
    if peek(line) and (not best or line.score < best.score
        or line.score == best.score and line.member < best.member) then
      best = line
    end
  end
  return best
end

-- Mark the first entry as read. It is removed later, unless it stays for another worker.
local function pass(line, stays)
  local run = line.taken[#line.taken]
  if stays then
    -- This entry ends the run of entries to remove.
  elseif run and run[2] == line.seen - 1 then
    run[2] = line.seen
  else
    line.taken[#line.taken + 1] = {line.seen, line.seen}
  end
  line.seen, line.at = line.seen + 1, line.at + 2
end

local function start(id, job)
  local changes = {status = 'running', attempts = whole(job[F.attempts] + 1), started_at = whole(NOW),
    updated_at = whole(NOW), worker_id = worker, claim = claim}
  redis.call('HSET', key(id), 'status', 'running', 'attempts', changes.attempts, 'started_at', changes.started_at,
    'updated_at', changes.updated_at, 'worker_id', worker, 'claim', claim)
  redis.call('SADD', P .. 'held:' .. worker, id)
  move(id, job, 'running')
  for name, value in pairs(changes) do job[F[name]] = value end
  return packed(id, job)
end

local jobs, bytes = {''}, 0
while #jobs <= limit do
  local line = first_line()
  if not line then break end
  local id = string.sub(line.member, 33)
  local stays = leaves > 0 and left[redis.call('HGET', key(id), 'type')]
  local job = not stays and load_whole(id)
  -- Drop the entry of a job that was deleted or changed manually.
  if job and job[F.status] == 'pending' and job[F.queue] == line.queue then
    bytes = bytes + #(job[F.data] or '')
    if #jobs > 1 and bytes > most then break end
    jobs[#jobs + 1] = start(id, job)
  end
  pass(line, stays)
end

local rung = #jobs == 1
for _, line in ipairs(lines) do
  for n = #line.taken, 1, -1 do redis.call('ZREMRANGEBYRANK', line.key, unpack(line.taken[n])) end
  if redis.call('EXISTS', line.key) == 0 then
    redis.call('SREM', P .. 'waiting', line.queue)
  elseif not rung then
    -- This worker did not take all jobs, so wake the next worker, which will wake another one in turn.
    ring(line.queue, 1)
    rung = true
  end
end
if #jobs == 1 and bell ~= '' then
  for _, queue in ipairs(serves) do redis.call('SADD', P .. 'asleep:' .. queue, bell) end
end
local next_due = redis.call('ZRANGE', P .. 'scheduled', 0, 0, 'WITHSCORES')[2]
if next_due then jobs[1] = whole(math.max(next_due - NOW, 0)) end
return jobs
