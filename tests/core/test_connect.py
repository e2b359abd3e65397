"""open_storage chooses a storage by the URL, and explains why it cannot open one."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pgjobq import ConfigurationError, JobQueue, open_storage
from pgjobq.connect import is_postgres

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
DRIVERS = {"mysql": "pymysql", "redis": "redis", "mongodb": "pymongo", "dynamodb": "boto3"}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("", "PostgresStorage"),
        ("host=127.0.0.1 dbname=app password=a://b", "PostgresStorage"),
        ("postgresql://u:p@127.0.0.1:1/app", "PostgresStorage"),
        ("postgres://u:p@127.0.0.1:1/app", "PostgresStorage"),
        ("postgresql+psycopg://u:p@127.0.0.1:1/app", "PostgresStorage"),
        ("sqlalchemy+postgresql://u:p@127.0.0.1:1/app", "SQLAlchemyStorage"),
        ("sqlite:///:memory:", "SQLAlchemyStorage"),
        ("sqlite+pysqlite:///:memory:", "SQLAlchemyStorage"),
        ("mysql://u:p@127.0.0.1:1/app", "SQLAlchemyStorage"),
        ("mysql+pymysql://u:p@127.0.0.1:1/app", "SQLAlchemyStorage"),
        ("mariadb://u:p@127.0.0.1:1/app", "SQLAlchemyStorage"),
        ("mariadb+pymysql://u:p@127.0.0.1:1/app", "SQLAlchemyStorage"),
        ("redis://127.0.0.1:1/0", "RedisStorage"),
        ("rediss://127.0.0.1:1/0", "RedisStorage"),
        ("valkey://127.0.0.1:1/0", "RedisStorage"),
        ("unix:///nowhere.sock", "RedisStorage"),
        ("mongodb://127.0.0.1:1", "MongoStorage"),
        ("mongodb://127.0.0.1:1/app", "MongoStorage"),
        ("dynamodb://eu-central-1/jobs", "DynamoDBStorage"),
    ],
)
def test_url_selects_its_storage(url: str, name: str) -> None:
    """No server listens at these addresses, so this also shows that a storage does not connect when it is opened."""
    storage = open_storage(url)
    try:
        assert type(storage).__name__ == name
        assert is_postgres(url) == (name == "PostgresStorage")
    finally:
        storage.close()


@pytest.mark.parametrize("url", ["nosql://u:s3cret@localhost/app", "NOSQL+driver://u:s3cret@h", "http://u:s3cret@h/"])
def test_error_for_an_unknown_scheme_lists_the_known_schemes(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"dsn: no storage supports (nosql|http)://; use one of") as told:
        open_storage(url)
    for scheme in ("postgresql://", "sqlite://", "mysql://", "redis://", "mongodb://", "dynamodb://"):
        assert scheme in str(told.value)
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["postgresql://h/d", "sqlite:///:memory:", "redis://h", "mongodb://h", "dynamodb://r/t"]
)
def test_unknown_option_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^colour: \w+Storage has no such option; it has: \w+, "):
        JobQueue(url, colour="red")


def test_options_reach_the_storage() -> None:
    storage = open_storage("sqlite:///:memory:", lease=7)
    assert vars(storage)["lease"] == 7
    storage.close()


@pytest.mark.parametrize(("scheme", "module"), DRIVERS.items())
def test_error_for_a_missing_driver_names_the_extra_that_installs_it(scheme: str, module: str, tmp_path: Path) -> None:
    # None in sys.modules makes Python treat the module as not installed.
    program = f"""
import sys
sys.modules[{module!r}] = None
from pgjobq import ConfigurationError, open_storage
try:
    open_storage({scheme + "://u:s3cret@localhost/app"!r})
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    extra = {"mongodb": "mongo"}.get(scheme, scheme)
    assert f"{scheme}:// needs the module '{module}" in done.stdout
    (required,) = PROJECT["optional-dependencies"][extra]
    assert f"which the extra {extra} installs; install it: pip install '{required}'" in done.stdout
    assert "s3cret" not in done.stdout


def test_error_for_a_dialect_without_its_driver_names_the_module() -> None:
    with pytest.raises(
        ConfigurationError, match=r"oracle:// needs the module '(cx_Oracle|oracledb)'; .* oracle\+DRIVER://"
    ):
        open_storage("oracle://u:s3cret@localhost/app")


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:s3cret/5432@localhost:6379/0",  # special characters in a password must be encoded
        "redis://u:s3cret@localhost:port/0",
        "mongodb://u:s3cret/5432@localhost",
        "mysql://u:s3cret@localhost:port/app",
        "dynamodb://u:s3cret@eu-central-1/jobs",
        "sqlalchemy+://u:s3cret@h",
        "sqlalchemy+nosql://u:s3cret@h/app",
        "sqlalchemy+redis://u:s3cret@h/app",
    ],
)
def test_invalid_url_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^(dsn|uri|url): ") as told:
        open_storage(url)
    assert "s3cret" not in str(told.value)
    assert "5432" not in str(told.value)
