-- Add jobs, all or none. ARGV: rows of id, type, queue, priority, max_retries, when, data. `when` is a time, 'd' and a
-- delay, or empty for now. Returns an id that exists already, or nothing.
local rows, seen = {}, {}
for n, row in ipairs(ARGV) do
  local parts = split(row)
  local id = parts[1]
  if seen[id] or redis.call('EXISTS', key(id)) == 1 then return id end
  rows[n], seen[id] = parts, true
end

local seq = redis.call('INCRBY', P .. 'seq', #rows) - #rows
local created, known = whole(NOW), {}
for n, row in ipairs(rows) do
  local id, type, queue, priority, max_retries, when, data = unpack(row)
  local due = NOW
  if string.sub(when, 1, 1) == 'd' then
    due = NOW + string.sub(when, 2)
    when = whole(due)
  elseif when ~= '' then
    due = tonumber(when)
  end
  local entry = hex(NOW) .. hex(seq + n)
  redis.call('HSET', key(id), 'type', type, 'queue', queue, 'data', data, 'status', 'pending', 'priority', priority,
    'attempts', '0', 'max_retries', max_retries, 'created_at', created, 'updated_at', created, 'due', whole(due),
    'entry', entry)
  if when ~= '' then redis.call('HSET', key(id), 'execute_at', when) end
  redis.call('ZADD', index('pending', queue), 0, entry .. id)
  if not known[queue] then
    redis.call('SADD', P .. 'queues', queue)
    known[queue] = true
  end
  place(id, queue, tonumber(priority), due, entry)
end
ring_for_arrivals()
