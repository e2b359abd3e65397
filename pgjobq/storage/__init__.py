"""The storages. base.py defines their interface. Each storage is a module, and its parts are in a folder beside it.

All of pgjobq's own storages share fenced.py. The storages whose databases cannot detect that a worker died also share
leased.py. The parts of PostgresStorage are in pgjobq/postgres, because its engine is SQL and the command line also uses
them. The modules of the other folders have the same names: connection, schema, rows (jobs as the database stores them),
enqueueing, claiming, settling, leases (workers and rescue) and errors.
"""
