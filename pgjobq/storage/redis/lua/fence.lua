-- From now on no claim of this worker up to this one is carried out: its answer is not waited for any more, and it may
-- still be on its way. ARGV: worker, number.
redis.call('HSET', P .. 'worker:' .. ARGV[1], 'claim', ARGV[2])
