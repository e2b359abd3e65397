"""Where jobs are kept. base.py is the seam, and each storage is a module with its parts in a folder beside it.

fenced.py is what all of pgjobq's own storages share, and leased.py what those share whose database cannot tell that a
worker died. The parts of PostgresStorage are in pgjobq/postgres, because its engine is SQL and the command line uses
them, too. The other folders have the same names for the same jobs: connection, schema, rows (jobs as the database keeps
them), enqueueing, claiming, settling, leases (workers and rescue) and errors.
"""
