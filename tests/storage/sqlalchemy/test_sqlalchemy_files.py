"""Tests of SQLAlchemyStorage with SQLite files that are locked, read-only, missing or damaged, or on a full disk."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.sqlalchemy_jobs import closing, start
from sqlalchemy import event

from pgjobq import NewJob
from pgjobq.errors import StorageError, StorageUnavailable
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

# -- SQLite's files --------------------------------------------------------------------------------


def test_locked_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(SQLAlchemyStorage(f"sqlite:///{path}", timeout=0.3)) as storage:
        storage.enqueue_many([NewJob(id=name, type="t") for name in "ab"])
        start(storage)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin exclusive")
        for call in (lambda: storage.enqueue("c", "t", {}), storage.dequeue, lambda: storage.complete("a")):
            begun = time.monotonic()
            with pytest.raises(StorageUnavailable, match=re.escape(f"{path} is locked")):
                call()
            assert 0.2 < time.monotonic() - begun < 5
        other.execute("rollback")
        other.close()
        storage.complete("a")
        assert start(storage).id == "b"


def test_locked_before_the_first_use(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin exclusive")
    with closing(SQLAlchemyStorage(f"sqlite:///{path}", timeout=0.2)) as storage:
        with pytest.raises(StorageUnavailable, match="is locked"):
            storage.enqueue("a", "t", {})
        other.execute("rollback")
        other.close()
        storage.enqueue("a", "t", {})
        assert start(storage).id == "a"


def test_transaction_that_enqueues_without_its_connection(tmp_path: Path) -> None:
    """The enqueue would wait for its own transaction, so it is refused and rolled back."""
    with closing(SQLAlchemyStorage(f"sqlite:///{tmp_path}/jobs.db", timeout=0.2)) as storage:
        storage.enqueue("a", "t", {})
        a = start(storage)

        def work() -> None:
            with storage.transaction(a) as conn:
                storage.enqueue_many([NewJob(id="inside", type="t")], conn)
                storage.enqueue("outside", "t", {})

        with pytest.raises(StorageUnavailable, match="is locked"):
            work()
        assert {job.id: str(job.status) for job in storage.list_jobs()} == {"a": "running"}


def test_read_only_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(SQLAlchemyStorage(f"sqlite:///{path}")) as storage:
        storage.enqueue("a", "t", {})
    with closing(SQLAlchemyStorage(f"sqlite:///file:{path}?mode=ro&uri=true")) as storage:
        assert [job.id for job in storage.list_jobs()] == ["a"]
        for call in (lambda: storage.enqueue("b", "t", {}), storage.dequeue, lambda: storage.cancel("a")):
            with pytest.raises(StorageError, match="is read-only; let this user write"):
                call()
        assert [(job.id, str(job.status)) for job in storage.list_jobs()] == [("a", "pending")]


def test_missing_folder(tmp_path: Path) -> None:
    storage = SQLAlchemyStorage(f"sqlite:///{tmp_path}/nowhere/jobs.db")
    with pytest.raises(StorageUnavailable, match=r"nowhere/jobs\.db cannot be opened; check that its folder exists"):
        storage.enqueue("a", "t", {})
    storage.close()


def test_file_that_is_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"precious" * 1000)
    storage = SQLAlchemyStorage(f"sqlite:///{path}")
    with pytest.raises(StorageError, match="is not a SQLite database"):
        storage.enqueue("a", "t", {})
    storage.close()
    assert path.read_bytes() == b"precious" * 1000


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """If we are root, mount a file system of half a megabyte on the folder. Yield whether it is mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", folder], check=True)


def test_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path) as is_small:
        storage = SQLAlchemyStorage(f"sqlite:///{tmp_path}/jobs.db")
        if not is_small:  # SQLite's own limit has the same effect

            @event.listens_for(storage.engine, "connect")
            def limit(connection: Any, _record: Any) -> None:
                connection.execute("pragma max_page_count = 60")

        fill_disk(storage)


def fill_disk(storage: SQLAlchemyStorage) -> None:
    """Fill the disk, and check that each batch is stored completely or not at all."""
    storage.enqueue("first", "t", {})
    added: list[str] = []

    def fill() -> None:
        while True:
            new = [NewJob(type="t", data={"x": "x" * 4000}) for _ in range(5)]
            added.extend(storage.enqueue_many(new))

    with pytest.raises(StorageUnavailable, match="the disk is full"):
        fill()
    assert added
    assert {job.id for job in storage.list_jobs()} == {"first", *added}
    storage.engine.dispose()
    storage.close()
