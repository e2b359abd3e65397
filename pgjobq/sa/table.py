"""The tables of SQLAlchemyStorage, which lie in pgjobq.storage.sqlalchemy.table now."""

from pgjobq.storage.sqlalchemy.table import Base, JobRecord, WorkerRecord

__all__ = ["Base", "JobRecord", "WorkerRecord"]
