-- Register a worker. ARGV: worker, name, lease.
redis.call('ZADD', P .. 'workers', whole(NOW + ARGV[3]), ARGV[1])
redis.call('HSET', P .. 'worker:' .. ARGV[1], 'name', ARGV[2], 'started', whole(NOW))
