-- Return a row for each queue: its name, the number of its jobs of each status, and for how many microseconds the first
-- job in line has been due (empty if no job is due).
local rows = {}
for n, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
  local parts = {queue}
  for _, status in ipairs(STATUSES) do parts[#parts + 1] = whole(redis.call('ZCARD', index(status, queue))) end
  local first = redis.call('ZRANGE', P .. 'ready:' .. queue, 0, 0)[1]
  parts[#parts + 1] = first and whole(NOW - tonumber(string.sub(first, 1, 16), 16)) or ''
  rows[n] = table.concat(parts, '\0')
end
return rows
