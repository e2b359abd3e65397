-- Return a row for each registered worker: its id, name, start time, 1 while its lease lasts, and its number of jobs.
local rows = {}
local found = redis.call('ZRANGE', P .. 'workers', 0, -1, 'WITHSCORES')
for n = 1, #found, 2 do
  local worker = found[n]
  local known = redis.call('HMGET', P .. 'worker:' .. worker, 'name', 'started')
  rows[#rows + 1] = table.concat({worker, known[1] or '', known[2] or '', found[n + 1] + 0 > NOW and '1' or '0',
    whole(redis.call('SCARD', P .. 'held:' .. worker))}, '\0')
end
return rows
