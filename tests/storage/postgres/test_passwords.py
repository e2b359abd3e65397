"""Tests that no password is shown for an invalid DSN, for a server that does not answer, or in the log."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from pgjobq import ConfigurationError, JobQueue, PgjobqError

# The password contains S3 and cr3t, so that a test also finds a part of it.
WORDS = ("S3", "cr3t", "54321")
BROKEN = [
    # psycopg and libpq
    "postgresql://u:S3@cr3t@127.0.0.1:1/db",
    "postgresql://u:S3/cr3t@127.0.0.1:1/db",
    "postgresql://u:54321/cr3t@127.0.0.1:1/db",
    "postgresql://u:S3#cr3t@cr3t@127.0.0.1:1/db",
    "postgresql://u:S3%cr3t@127.0.0.1:1/db",
    "postgresql://u:S3%zzcr3t@127.0.0.1:1/db",
    "postgresql://u:S3%00cr3t@127.0.0.1:1/db",
    "postgresql://u%3AS3cr3t@127.0.0.1:1/db",
    "postgresql://u:S3cr3t@127.0.0.1:1:2/db",
    "postgresql://u:S3cr3t@[::1/db",
    "postgresql://u:S3 cr3t@127.0.0.1 :1/db",
    "postgresql://u:[S3]cr3t/x@127.0.0.1:1/db",
    "postgres://u:S3/cr3t@127.0.0.1:1/db",
    "postgresql+psycopg://u:S3/cr3t@127.0.0.1:1/db",
    "host=127.0.0.1 port=1 user=u password=S3 cr3t dbname=db",
    "host=127.0.0.1 port=1 user=u password='S3'cr3t' dbname=db",
    "host=127.0.0.1 port=1 user=u password='S3cr3t dbname=db",
    'host=127.0.0.1 port=1 user=u password="S3 cr3t" dbname=db',
    "host=127.0.0.1 port=1 user=u password=S3\\ cr3t' dbname=db x",
    "host=127.0.0.1;port=1;user=u;password=S3cr3t;dbname=db",
    "host=127.0.0.1,port=1,user=u,password=S3cr3t",
    "port=1;password=S3cr3t host=127.0.0.1",
    "127.0.0.1:1:db:u:S3cr3t",
    "S3cr3t",
    # SQLAlchemy
    "mysql://u:S3@cr3t@127.0.0.1:1/db",
    "mysql://u:S3cr3t@127.0.0.1:S3/db",
    "mysql+pymysql://u:S3@cr3t/x@127.0.0.1:1/db",
    "sqlalchemy+postgresql://u:S3@cr3t@127.0.0.1:1/db",
    "sqlalchemy+postgresql://u:S3cr3t@127.0.0.1:x1/db",
    # redis-py
    "redis://u:54321/cr3t@127.0.0.1:1/0",
    "redis://:54321#cr3t@127.0.0.1:1/0",
    "redis://:54321?cr3t@127.0.0.1:1/0",
    "rediss://u:S3/cr3t@127.0.0.1:1/0",
    "valkey://u:S3#cr3t@127.0.0.1:1/0",
    # pymongo
    "mongodb://u:S3@cr3t@127.0.0.1:1/db",
    "mongodb://u:54321/cr3t@127.0.0.1:1/db",
    "mongodb://u:S3%zzcr3t@127.0.0.1:1/db",
    "mongodb://u:54321?cr3t@127.0.0.1:1/db",
    # boto3
    "dynamodb://u:S3cr3t@eu-central-1/jobs",
]
WHOLE = [
    "postgresql://u:S3?cr3t@127.0.0.1:1/db",
    "postgresql://u:S3?x=#cr3t@127.0.0.1:1/db",
    "postgresql://u:S3cr3t@127.0.0.1:1/db",
    "postgresql://u:S3%2Fcr3t%40@127.0.0.1:1/db?application_name=a@b",
    "host=127.0.0.1 port=1 user=u password='S3 cr3t' dbname=db",
    "postgresql:///db?host=127.0.0.1&port=1&user=u@v&password=S3cr3t",
    "sqlalchemy+postgresql://u:S3cr3t@127.0.0.1:1/db",
    "mysql://u:S3/cr3t@127.0.0.1:1/db",
    "redis://u:S3cr3t@127.0.0.1:1/0",
    "redis://u:S3%2Fcr3t@127.0.0.1:1/0",
    "mongodb://u:S3cr3t@127.0.0.1:1/db?serverSelectionTimeoutMS=100",
]


def shows(text: str) -> list[str]:
    return [word for word in WORDS if word in text]


@pytest.mark.parametrize("url", BROKEN)
def test_invalid_dsn_is_refused_without_connecting(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigurationError, match=r"^(dsn|url|uri): ") as told:
        JobQueue(url).close()
    assert not shows("".join(traceback.format_exception(told.value)[-1:])), "the message"
    # A logged traceback contains the causes, too. The source lines of this test do not count.
    chain: list[BaseException] = [told.value]
    while (
        before := chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__)
    ) is not None:
        chain.append(before)
    assert not [shows(str(error)) for error in chain if shows(str(error))]
    assert not shows(caplog.text)


@pytest.mark.parametrize("url", WHOLE)
def test_server_that_does_not_answer_is_named_without_the_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    options: dict[str, Any] = {} if url.startswith(("mongodb", "redis")) else {"timeout": 1}
    with JobQueue(url, **options) as queue, pytest.raises(PgjobqError) as told:
        queue.enqueue("t")
    assert not shows(str(told.value))
    assert not shows(str(told.value.__cause__))
    assert not shows(caplog.text)


@pytest.mark.parametrize(
    "url", [BROKEN[0], BROKEN[1], BROKEN[14], BROKEN[17], BROKEN[19], BROKEN[24], BROKEN[29], BROKEN[35], WHOLE[0]]
)
@pytest.mark.parametrize("command", [["stats"], ["migrate"], ["check"], ["worker", "os"]])
def test_commands_show_no_password(url: str, command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pgjobq", *command],
        env={**os.environ, "PGJOBQ_DSN": url},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode != 0
    assert not shows(done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
