-- Delete a worker's registration. If it still holds jobs, mark it as dead, so that they are rescued. ARGV: worker.
if redis.call('EXISTS', P .. 'held:' .. ARGV[1]) == 1 then
  redis.call('ZADD', P .. 'workers', 0, ARGV[1])
else
  forget_worker(ARGV[1])
end
