"""The parts of RedisStorage. Only they and RedisStorage import redis. lua/ contains the scripts, which are atomic."""
