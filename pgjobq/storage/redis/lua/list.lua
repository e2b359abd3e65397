-- Return a page of jobs by age. ARGV: the largest number of jobs, the most bytes of data (but always at least one job),
-- 'newest' or 'oldest' first, the cursor of the page before or '', a status or '', a queue or ''. Returns the cursor of
-- the next page, or '' after the last page, and then the jobs. A job whose status changes between two pages is returned
-- exactly once, because its place is the same in every list.
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
  bytes = bytes + (job and #(job[F.data] or '') + #(job[F.result] or '') or 0)
  if #jobs > 1 and bytes > most then return jobs end
  if job then jobs[#jobs + 1] = packed(id, job) end
  jobs[1] = entries[n]
end
if #entries < limit then jobs[1] = '' end
return jobs
