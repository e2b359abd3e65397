"""Runs the examples of DBJobQ's storage page. Only the package's name and the servers' addresses are replaced."""

from __future__ import annotations

import inspect
import re
import secrets
from abc import ABC
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, get_origin, get_type_hints
from urllib.parse import quote

import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

from pgjobq import JobQueue, Registry, Worker, job
from pgjobq.storage.base import BaseStorage

BASIC = """
from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

# SQLite (file-based)
storage = SQLAlchemyStorage("sqlite:///jobs.db")

# SQLite (in-memory, for testing)
storage = SQLAlchemyStorage("sqlite:///:memory:")

# PostgreSQL
storage = SQLAlchemyStorage(
    "postgresql://user:password@localhost:5432/mydb"
)

# MySQL
storage = SQLAlchemyStorage(
    "mysql+pymysql://user:password@localhost:3306/mydb"
)
"""
POOLING = """
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

engine = create_engine(
    "postgresql://user:pass@localhost/db",
    poolclass=QueuePool,
    pool_size=10,           # Number of connections to keep
    max_overflow=20,        # Additional connections when needed
    pool_timeout=30,        # Seconds to wait for connection
    pool_recycle=3600,      # Recycle connections after 1 hour
)

storage = SQLAlchemyStorage(engine)
"""
CUSTOM_ENGINE = """
from sqlalchemy import create_engine
from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

# Custom engine with options
engine = create_engine(
    "postgresql://localhost/jobs",
    echo=True,              # Log SQL queries
    pool_pre_ping=True,     # Verify connections
    connect_args={
        "connect_timeout": 10,
        "options": "-c timezone=utc"
    }
)

storage = SQLAlchemyStorage(engine)
"""
WORKERS_POOL = """
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

engine = create_engine(
    connection_string,
    poolclass=QueuePool,
    pool_size=10,      # Workers * 2 is a good start
    max_overflow=5
)
"""
CLEANUP = '''
def cleanup_old_jobs(storage, days=30):
    """Remove completed jobs older than X days."""
    cutoff = datetime.now() - timedelta(days=days)
    
    # SQLAlchemy example
    storage.session.query(Job).filter(
        Job.status == "completed",
        Job.updated_at < cutoff
    ).delete()
    storage.session.commit()
'''  # noqa: W293  # as on the page
INTERFACE = '''
from abc import ABC, abstractmethod
from datetime import datetime
from typing import Optional
from dbjobq.models import Job

class BaseStorage(ABC):
    """Abstract base class for storage backends."""

    @abstractmethod
    def enqueue(
        self,
        job_id: str,
        job_type: str,
        data: dict,
        max_retries: int = 3,
        priority: int = 5,
        execute_at: Optional[datetime] = None
    ) -> None:
        """Add a job to storage."""
        pass

    @abstractmethod
    def dequeue(self) -> Optional[Job]:
        """Get next job to process. Must be atomic."""
        pass

    @abstractmethod
    def complete(self, job_id: str) -> None:
        """Mark job as completed."""
        pass

    @abstractmethod
    def fail(self, job_id: str, error: str) -> None:
        """Mark job as failed."""
        pass

    @abstractmethod
    def retry(self, job_id: str, delay_seconds: float) -> None:
        """Retry a failed job after delay."""
        pass

    @abstractmethod
    def get_job(self, job_id: str) -> Optional[Job]:
        """Get job by ID."""
        pass

    @abstractmethod
    def list_jobs(
        self,
        status: Optional[str] = None,
        limit: Optional[int] = None
    ) -> list[Job]:
        """List jobs with optional filtering."""
        pass
'''
MONGO = '''
from pymongo import MongoClient
from datetime import datetime, timedelta
from typing import Optional
from dbjobq.storage.base import BaseStorage
from dbjobq.models import Job

class MongoStorage(BaseStorage):
    """MongoDB-based job storage."""

    def __init__(self, mongo_uri: str, database: str = "jobqueue"):
        self.client = MongoClient(mongo_uri)
        self.db = self.client[database]
        self.jobs = self.db.jobs

        # Create indexes
        self.jobs.create_index([
            ("status", 1),
            ("priority", -1),
            ("execute_at", 1)
        ])

    def enqueue(
        self,
        job_id: str,
        job_type: str,
        data: dict,
        max_retries: int = 3,
        priority: int = 5,
        execute_at: Optional[datetime] = None
    ) -> None:
        """Insert job into MongoDB."""
        self.jobs.insert_one({
            "_id": job_id,
            "type": job_type,
            "data": data,
            "status": "pending",
            "attempts": 0,
            "max_retries": max_retries,
            "priority": priority,
            "execute_at": execute_at,
            "created_at": datetime.now(),
            "updated_at": datetime.now(),
        })

    def dequeue(self) -> Optional[Job]:
        """Atomically get and update next job."""
        job_doc = self.jobs.find_one_and_update(
            {
                "status": "pending",
                "$or": [
                    {"execute_at": None},
                    {"execute_at": {"$lte": datetime.now()}}
                ]
            },
            {"$set": {
                "status": "running",
                "updated_at": datetime.now()
            }},
            sort=[("priority", -1), ("created_at", 1)],
            return_document=True
        )

        if not job_doc:
            return None

        return self._doc_to_job(job_doc)

    def complete(self, job_id: str) -> None:
        """Mark job as completed."""
        self.jobs.update_one(
            {"_id": job_id},
            {"$set": {
                "status": "completed",
                "updated_at": datetime.now()
            }}
        )

    def fail(self, job_id: str, error: str) -> None:
        """Mark job as failed."""
        self.jobs.update_one(
            {"_id": job_id},
            {"$set": {
                "status": "failed",
                "error": error,
                "updated_at": datetime.now()
            }}
        )

    def retry(self, job_id: str, delay_seconds: float) -> None:
        """Retry job after delay."""
        self.jobs.update_one(
            {"_id": job_id},
            {
                "$set": {
                    "status": "pending",
                    "execute_at": datetime.now() + timedelta(seconds=delay_seconds),
                    "updated_at": datetime.now()
                },
                "$inc": {"attempts": 1}
            }
        )

    def get_job(self, job_id: str) -> Optional[Job]:
        """Get job by ID."""
        job_doc = self.jobs.find_one({"_id": job_id})
        return self._doc_to_job(job_doc) if job_doc else None

    def list_jobs(
        self,
        status: Optional[str] = None,
        limit: Optional[int] = None
    ) -> list[Job]:
        """List jobs with optional filtering."""
        query = {"status": status} if status else {}
        cursor = self.jobs.find(query).sort("created_at", -1)

        if limit:
            cursor = cursor.limit(limit)

        return [self._doc_to_job(doc) for doc in cursor]

    def _doc_to_job(self, doc: dict) -> Job:
        """Convert MongoDB document to Job."""
        return Job(
            id=doc["_id"],
            type=doc["type"],
            data=doc["data"],
            status=doc["status"],
            error=doc.get("error"),
            attempts=doc["attempts"],
            max_retries=doc["max_retries"],
            priority=doc["priority"],
            execute_at=doc.get("execute_at"),
            created_at=doc["created_at"],
            updated_at=doc["updated_at"],
        )
'''
POSTGRES = re.compile(r"postgresql://(user:password@localhost:5432/mydb|user:pass@localhost/db|localhost/jobs)")
MYSQL = "mysql+pymysql://user:password@localhost:3306/mydb"


class Page:
    """Runs the examples of the page one after the other in one namespace."""

    def __init__(self, postgres: str) -> None:
        self._postgres = postgres
        self.namespace: dict[str, Any] = {"datetime": datetime, "timedelta": timedelta}
        self.made: list[BaseStorage] = []

    def run(self, example: str, **replaced: str) -> Any:
        """Run an example, and return its last storage."""
        text = POSTGRES.sub(lambda _: self._postgres, example.replace("dbjobq", "pgjobq"))
        for old, new in replaced.items():
            text = text.replace(old, new)
        exec(compile(text, "example", "exec"), self.namespace)  # noqa: S102  # our own text
        storage = self.namespace.get("storage")
        if isinstance(storage, BaseStorage) and storage not in self.made:
            self.made.append(storage)
        return storage


@pytest.fixture
def page(empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """Return a Page with an empty PostgreSQL database. The current folder is empty."""
    monkeypatch.chdir(tmp_path)
    part = {key: quote(str(value), safe="") for key, value in conninfo_to_dict(empty_dsn).items()}
    page = Page("postgresql://{user}:{password}@{host}:{port}/{dbname}".format_map(part))
    yield page
    for storage in page.made:
        storage.close()
    for value in page.namespace.values():
        if isinstance(value, sqlalchemy.Engine):
            value.dispose()


@pytest.fixture
def mariadb(mariadb_url: str) -> Iterator[str]:
    """Create a MariaDB database and return its URL."""
    name = f"page_{secrets.token_hex(4)}"
    server = sqlalchemy.create_engine(mariadb_url)
    with server.begin() as conn:
        conn.execute(sqlalchemy.text(f"create database {name}"))
    yield mariadb_url.rpartition("/")[0] + f"/{name}"
    with server.begin() as conn:
        conn.execute(sqlalchemy.text(f"drop database {name}"))
    server.dispose()


def works(storage: Any) -> None:
    """Check that a worker on the storage completes a job."""
    registry, seen = Registry(), []

    @job(registry=registry)
    def note(n: int) -> None:
        seen.append(n)

    queue = JobQueue(storage, registry=registry)
    first = queue.enqueue(note, {"n": 1})
    assert Worker(queue, registry=registry).run_once() == 1
    found = queue.get_job(first)
    assert found is not None
    assert (found.status, seen) == ("completed", [1])


def parts_of(example: str) -> list[str]:
    """Split the basic set-up into its four parts, each with the import."""
    head, *parts = re.split(r"(?m)^# ", example)
    return [head + "# " + part for part in parts]


@pytest.mark.parametrize("number", range(3), ids=["file", "memory", "postgresql"])
def test_basic_setup(page: Page, number: int, tmp_path: Path) -> None:
    works(page.run(parts_of(BASIC)[number]))
    assert (tmp_path / "jobs.db").exists() == (number == 0)


def test_basic_setup_on_mysql(page: Page, mariadb: str) -> None:
    works(page.run(parts_of(BASIC)[3], **{MYSQL: mariadb}))


def test_basic_setup_as_a_whole_connects_to_nothing(page: Page, tmp_path: Path) -> None:
    """The example creates four storages. There is no server at the addresses of the last two."""
    page.run(BASIC, **{MYSQL: MYSQL.replace("localhost:3306", "127.0.0.1:1")})
    assert list(tmp_path.iterdir()) == []


def test_pooling(page: Page) -> None:
    page.run(parts_of(BASIC)[1])
    storage = page.run(POOLING)
    works(storage)
    assert page.namespace["engine"].pool.size() == 10


def test_custom_engine(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    storage = page.run(CUSTOM_ENGINE)
    with caplog.at_level("INFO", "sqlalchemy.engine"):
        works(storage)
    assert "INSERT INTO jobs" in caplog.text  # echo
    with page.namespace["engine"].connect() as conn:
        assert conn.exec_driver_sql("show timezone").scalar().upper() == "UTC"  # connect_args


def test_pool_for_several_workers(page: Page, tmp_path: Path) -> None:
    page.namespace["connection_string"] = f"sqlite:///{tmp_path / 'jobs.db'}"
    page.run(WORKERS_POOL)
    page.run(parts_of(BASIC)[1])
    storage = page.run("storage = SQLAlchemyStorage(engine)")
    works(storage)


@pytest.mark.parametrize("number", [0, 1, 2], ids=["file", "memory", "postgresql"])
def test_cleanup(page: Page, number: int) -> None:
    from pgjobq.storage.sqlalchemy_storage import JobRecord

    storage = page.run(parts_of(BASIC)[number])
    works(storage)
    storage.enqueue("waits", "t", {})
    page.namespace["Job"] = JobRecord
    page.run(CLEANUP)
    page.namespace["cleanup_old_jobs"](storage)
    assert len(storage.list_jobs()) == 2  # no job is 30 days old
    page.namespace["cleanup_old_jobs"](storage, days=0)
    assert [job.id for job in storage.list_jobs()] == ["waits"]


def test_schema(page: Page) -> None:
    """The tables have at least the columns and indexes of the page."""
    page.run(parts_of(BASIC)[2]).ping()
    engine = sqlalchemy.create_engine(page._postgres)
    found = sqlalchemy.inspect(engine)
    columns = {column["name"]: column for column in found.get_columns("jobs")}
    needed = ["id", "type", "data", "status"]
    optional = ["error", "attempts", "max_retries", "priority", "execute_at", "created_at", "updated_at"]
    assert {*needed, *optional} <= set(columns)
    for name in needed:
        assert not columns[name]["nullable"]
    assert found.get_pk_constraint("jobs")["constrained_columns"] == ["id"]
    indexes = {index["name"] for index in found.get_indexes("jobs")}
    assert {"idx_status_priority", "idx_execute_at", "idx_status_priority_execute", "idx_created_at"} <= indexes
    with engine.begin() as conn:  # the database fills in the defaults
        conn.execute(sqlalchemy.text("insert into jobs (id, type, data, status) values ('a', 't', '{}', 'pending')"))
    engine.dispose()
    kept = page.made[-1].dequeue()
    assert kept is not None
    assert (kept.id, kept.attempts, kept.max_retries, kept.priority) == ("a", 1, 3, 5)


def test_interface() -> None:
    """BaseStorage has the same methods, parameters, defaults and types as the page."""
    namespace: dict[str, Any] = {}
    exec(compile(INTERFACE.replace("dbjobq", "pgjobq"), "example", "exec"), namespace)  # noqa: S102  # our own text
    theirs = namespace["BaseStorage"]
    assert issubclass(BaseStorage, ABC)
    assert BaseStorage.__abstractmethods__ == theirs.__abstractmethods__
    for name in theirs.__abstractmethods__:
        method, ours = getattr(theirs, name), getattr(BaseStorage, name)
        assert [(p.name, p.default, p.kind) for p in inspect.signature(method).parameters.values()] == [
            (p.name, p.default, p.kind) for p in inspect.signature(ours).parameters.values()
        ]
        hints = get_type_hints(ours)
        for key, hint in get_type_hints(method).items():
            assert hint == hints[key] or hint is get_origin(hints[key])  # ours is more specific than dict


def test_mongo_example_runs_under_a_worker(page: Page, mongo_url: str) -> None:
    """A worker runs jobs on a storage that has only the seven abstract methods."""
    page.run(MONGO)
    storage = page.namespace["MongoStorage"](mongo_url, f"page_{secrets.token_hex(4)}")
    try:
        works(storage)
    finally:
        storage.client.close()
