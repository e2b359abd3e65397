-- The version of what lies under this prefix; ARGV: that of a prefix which holds nothing yet. Returns it.
redis.call('SET', P .. 'layout', ARGV[1], 'NX')
return redis.call('GET', P .. 'layout')
