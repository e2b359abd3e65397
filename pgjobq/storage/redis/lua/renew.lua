-- Renew a worker's lease. ARGV: worker, lease. Returns 1, or 0 if the worker is not registered.
if not redis.call('ZSCORE', P .. 'workers', ARGV[1]) then return 0 end
redis.call('ZADD', P .. 'workers', 'XX', whole(NOW + ARGV[2]), ARGV[1])
return 1
