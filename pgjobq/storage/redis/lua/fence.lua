-- Refuse this worker's claims up to this number from now on. The worker no longer waits for their answers, but they may
-- still be on their way. ARGV: worker, number.
redis.call('HSET', P .. 'worker:' .. ARGV[1], 'claim', ARGV[2])
