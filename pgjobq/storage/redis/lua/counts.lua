-- A row for each queue: its name, how many jobs it has of each status, and how long, in microseconds, the first in line
-- has been due (empty when none is).
local rows = {}
for n, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
  local parts = {queue}
  for _, status in ipairs(STATUSES) do parts[#parts + 1] = whole(redis.call('ZCARD', index(status, queue))) end
  local first = redis.call('ZRANGE', P .. 'ready:' .. queue, 0, 0)[1]
  parts[#parts + 1] = first and whole(NOW - tonumber(string.sub(first, 1, 16), 16)) or ''
  rows[n] = table.concat(parts, '\0')
end
return rows
