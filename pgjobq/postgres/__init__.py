"""Everything that speaks to PostgreSQL through psycopg: pool, listener, schema, errors."""
