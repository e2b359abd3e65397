-- Register a worker. ARGV: worker, name, lease.
redis.call('ZADD', P .. 'workers', whole(NOW + ARGV[3]), ARGV[1])
redis.call('HSET', P .. 'names', ARGV[1], ARGV[2])
