-- Return the layout version of this prefix. ARGV: the version to set if the prefix is new.
redis.call('SET', P .. 'layout', ARGV[1], 'NX')
return redis.call('GET', P .. 'layout')
