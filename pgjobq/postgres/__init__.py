"""Everything that talks to PostgreSQL through psycopg: the pool, the listener, the schema and the errors."""
