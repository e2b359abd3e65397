-- Delete jobs of one status and queue that finished long ago. ARGV: status, queue, age, how many to check, how many
-- of the oldest to skip. Returns how many were checked, and how many of them were deleted.
local status, queue, cutoff = ARGV[1], ARGV[2], NOW - ARGV[3]
local list = index(status, queue)
-- A job that finished before the cutoff was created before it.
local entries = redis.call('ZRANGEBYLEX', list, '-', '(' .. hex(cutoff + 1), 'LIMIT', ARGV[5], ARGV[4])
local deleted = 0
for _, entry in ipairs(entries) do
  local id = string.sub(entry, 33)
  local finished = redis.call('HGET', key(id), 'finished_at')
  if not finished or tonumber(finished) <= cutoff then
    redis.call('UNLINK', key(id))
    redis.call('ZREM', list, entry)
    deleted = deleted + 1
  end
end
for _, each in ipairs(STATUSES) do
  if redis.call('EXISTS', index(each, queue)) == 1 then return {#entries, deleted} end
end
redis.call('SREM', P .. 'queues', queue)
return {#entries, deleted}
