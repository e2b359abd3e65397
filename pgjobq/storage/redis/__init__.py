"""What RedisStorage is made of; the only folder that imports redis besides it. lua/ holds what must be atomic."""
