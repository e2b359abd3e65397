-- The common part at the head of every script. KEYS[1] is the prefix of every key and contains the hash tag, so all
-- keys are in one slot.
--
--   layout           number  the version of this layout
--   job:ID           hash    the job: its fields; `due`, in microseconds like all times; `entry`, the time when it was
--                            created and its place in the order of enqueueing, both in hex; `claim`, the number of the
--                            claim that started it last, which is never used again; `settled`, the claim of the last
--                            start that was settled, and its outcome
--   is:STATUS:QUEUE  zset    entry .. id of every job, all scores 0, by age, for listing, counting and pruning
--   ready:QUEUE      zset    pending jobs that are due, in the order of claims: score -priority, then due, then place
--   waiting          set     queues whose `ready` may hold a job
--   scheduled        zset    pending jobs that are not due: score due, member id
--   held:WORKER      set     ids of the jobs that a worker holds
--   workers          zset    registered workers: score the end of their lease
--   worker:WORKER    hash    its `name`, when it `started`, and the number of its last `claim`
--   queues           set     queues that have jobs
--   seq              number  the last place that was given
--   asleep:QUEUE     set     bells of workers that found no job in this queue; `asleep:` is for workers of all queues
--   bell:BELL        channel on which a worker is woken
--
-- An entry of ready or scheduled is only a hint, which scripts check against the job. Each script that changes jobs
-- begins with a write. Redis refuses it when memory is short or on a replica, so a refused script changes nothing.

local P = KEYS[1]
local clock = redis.call('TIME')
local NOW = clock[1] * 1000000 + clock[2]
local STATUSES = {'pending', 'running', 'completed', 'failed', 'cancelled'}
local FIELDS = {
  'type', 'data', 'status', 'queue', 'priority', 'attempts', 'max_retries', 'execute_at', 'error', 'created_at',
  'updated_at', 'started_at', 'finished_at', 'failed_at', 'worker_id', 'claim', 'crashes', 'result',
  'entry', 'due', 'settled',
}
local SHOWN = 18  -- callers get only the first 18 fields
local F, WITHOUT_DATA = {}, {}
for n, name in ipairs(FIELDS) do
  F[name] = n
  WITHOUT_DATA[n] = (name == 'data' or name == 'result') and '' or name
end

local function key(id) return P .. 'job:' .. id end
local function whole(n) return string.format('%.0f', n) end
local function hex(n) return string.format('%016x', math.max(n, 0)) end

-- Split a row at its NULs. No stored text contains NUL.
local function split(row)
  local parts, from = {}, 1
  while true do
    local at = string.find(row, '\0', from, true)
    if not at then
      parts[#parts + 1] = string.sub(row, from)
      return parts
    end
    parts[#parts + 1] = string.sub(row, from, at - 1)
    from = at + 1
  end
end

local function read(id, fields)
  local job = redis.call('HMGET', key(id), unpack(fields))
  if job[F.status] and job[F.entry] and job[F.due] then return job end
end

-- Load the fields of a job without its data and result, which may be large. Returns nil if the key is missing or is not
-- a job.
local function load(id) return read(id, WITHOUT_DATA) end
local function load_whole(id) return read(id, FIELDS) end

-- Return a job as a row for callers: id and fields. A missing field is empty, and an existing error begins with '='.
local function packed(id, job)
  local parts = {id}
  for n = 1, SHOWN do parts[n + 1] = job[n] or '' end
  if job[F.error] then parts[F.error + 1] = '=' .. job[F.error] end
  return table.concat(parts, '\0')
end

local function set(id, ...) redis.call('HSET', key(id), 'updated_at', whole(NOW), ...) end
local function index(status, queue) return P .. 'is:' .. status .. ':' .. queue end

-- Move the job to the list of its new status.
local function move(id, job, status)
  local entry = job[F.entry] .. id
  redis.call('ZADD', index(status, job[F.queue]), 0, entry)
  redis.call('ZREM', index(job[F.status], job[F.queue]), entry)
end

local function ready_member(id, due, entry) return hex(due) .. string.sub(entry, 17) .. id end

local arrived = {}  -- queue -> number of jobs that this script put in line
local soonest, soonest_queue  -- earliest due time of the jobs that this script scheduled, and its queue

local function line_up(id, queue, priority, due, entry)
  redis.call('ZADD', P .. 'ready:' .. queue, -priority, ready_member(id, due, entry))
  if not arrived[queue] then redis.call('SADD', P .. 'waiting', queue) end
  arrived[queue] = (arrived[queue] or 0) + 1
end

-- Give a pending job its place in ready or scheduled.
local function place(id, queue, priority, due, entry)
  if due <= NOW then return line_up(id, queue, priority, due, entry) end
  redis.call('ZADD', P .. 'scheduled', whole(due), id)
  if not soonest or due < soonest then soonest, soonest_queue = due, queue end
end

-- Remove the place of a pending job.
local function displace(id, job)
  if redis.call('ZREM', P .. 'scheduled', id) == 0 then
    redis.call('ZREM', P .. 'ready:' .. job[F.queue], ready_member(id, tonumber(job[F.due]), job[F.entry]))
  end
end

-- Wake up to this many workers that wait for jobs of this queue. Skip a dead worker, which has no subscription.
local function ring(queue, workers)
  for _, sleepers in ipairs({P .. 'asleep:' .. queue, P .. 'asleep:'}) do
    while workers > 0 do
      local bell = redis.call('SPOP', sleepers)
      if not bell then break end
      -- Without the right to publish, no worker is woken, and workers find the jobs when they poll.
      local heard = redis.pcall('PUBLISH', P .. 'bell:' .. bell, '')
      if type(heard) == 'number' and heard > 0 then workers = workers - 1 end
    end
  end
end

-- Wake workers for the jobs that were put in line. Also wake one if a new scheduled job is due before all others,
-- because its alarm is too late.
local function ring_for_arrivals()
  for queue, jobs in pairs(arrived) do ring(queue, jobs) end
  if soonest then
    local first = redis.call('ZRANGE', P .. 'scheduled', 0, 0, 'WITHSCORES')[2]
    if soonest <= tonumber(first) then ring(soonest_queue, 1) end
  end
end

local function forget_worker(worker)
  redis.call('ZREM', P .. 'workers', worker)
  redis.call('DEL', P .. 'worker:' .. worker)
end

-- Make a job pending, due at this time, whatever its status is.
local function put_in_line(id, job, due, ...)
  set(id, 'status', 'pending', 'due', whole(due), ...)
  if job[F.finished_at] then redis.call('HDEL', key(id), 'finished_at', 'failed_at', 'result') end
  if job[F.status] == 'pending' then displace(id, job) else move(id, job, 'pending') end
  place(id, job[F.queue], tonumber(job[F.priority]), due, job[F.entry])
end

-- Return the number of starts that count as tries and, if the job has crashed, the changes that a clean end makes.
local function tries(job) return tonumber(job[F.attempts]) - tonumber(job[F.crashes] or 0) end
local function clear(id, job)
  if job[F.crashes] and job[F.crashes] ~= '0' then set(id, 'attempts', whole(tries(job)), 'crashes', '0') end
end

local function fail(id, job, error, ...)
  set(id, 'status', 'failed', 'error', error, 'finished_at', whole(NOW), 'failed_at', whole(NOW), ...)
  move(id, job, 'failed')
end
