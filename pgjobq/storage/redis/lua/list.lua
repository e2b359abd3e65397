-- A page of jobs by age. ARGV: how many, bytes of data at most (one job is always given), 'newest' or 'oldest' first,
-- the cursor of the page before or nothing, a status or nothing, a queue or nothing. Returns the cursor of the next
-- page, empty when there is none; then the jobs. A job whose status changes between two pages is not missed, nor met
-- twice: its place is the same in every list.
local limit, most, cursor = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4]
local newest = ARGV[3] == 'newest'
local statuses = ARGV[5] ~= '' and {ARGV[5]} or STATUSES
local queues = ARGV[6] ~= '' and {ARGV[6]} or redis.call('SMEMBERS', P .. 'queues')

local entries = {}
for _, queue in ipairs(queues) do
  for _, status in ipairs(statuses) do
    local found
    if newest then
      local from = cursor ~= '' and '(' .. cursor or '+'
      found = redis.call('ZREVRANGEBYLEX', index(status, queue), from, '-', 'LIMIT', 0, limit)
    else
      local from = cursor ~= '' and '(' .. cursor or '-'
      found = redis.call('ZRANGEBYLEX', index(status, queue), from, '+', 'LIMIT', 0, limit)
    end
    for _, entry in ipairs(found) do entries[#entries + 1] = entry end
  end
end
table.sort(entries, function(a, b)
  if newest then return a > b end
  return a < b
end)

local jobs, bytes = {''}, 0
for n = 1, math.min(limit, #entries) do
  local id = string.sub(entries[n], 33)
  local job = load_whole(id)
  bytes = bytes + (job and #(job[F.data] or '') or 0)
  if #jobs > 1 and bytes > most then return jobs end
  if job then jobs[#jobs + 1] = packed(id, job) end
  jobs[1] = entries[n]
end
if #entries < limit then jobs[1] = '' end
return jobs
