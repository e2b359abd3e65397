-- Make a failed, cancelled or pending job pending, due after the delay. ARGV: id, delay. Returns 1, or 0 if the job has
-- another status or does not exist.
redis.call('INCRBY', P .. 'seq', 0)
local id, due = ARGV[1], NOW + ARGV[2]
local job = load(id)
if not job or job[F.status] == 'running' or job[F.status] == 'completed' then return 0 end
clear(id, job)
put_in_line(id, job, due, 'execute_at', whole(due))
ring_for_arrivals()
return 1
