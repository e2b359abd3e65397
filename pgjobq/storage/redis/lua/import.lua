-- Add the jobs whose ids do not exist, with their state. Returns how many. ARGV: rows of id, due, created_at, and the
-- fields, each as its name and its value.
redis.call('INCRBY', P .. 'seq', 0)
local added = 0
for _, row in ipairs(ARGV) do
  local parts = split(row)
  local id, due, created = parts[1], tonumber(parts[2]), tonumber(parts[3])
  if redis.call('EXISTS', key(id)) == 0 then
    local entry = hex(created) .. hex(redis.call('INCR', P .. 'seq'))
    redis.call('HSET', key(id), 'due', parts[2], 'entry', entry, unpack(parts, 4))
    local status, queue, priority = unpack(redis.call('HMGET', key(id), 'status', 'queue', 'priority'))
    redis.call('SADD', P .. 'queues', queue)
    redis.call('ZADD', index(status, queue), 0, entry .. id)
    if status == 'pending' then place(id, queue, tonumber(priority), due, entry) end
    added = added + 1
  end
end
ring_for_arrivals()
return added
