-- Return a job. ARGV: id.
local job = load_whole(ARGV[1])
return job and packed(ARGV[1], job)
