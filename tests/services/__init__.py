"""The servers that tests run against beside PostgreSQL: real ones, each in a folder and on a port of its own.

`make services` installs them (`python -m services`, in this folder's parent). Each is a child of the process that
starts it, and ends with it, whatever ends it.
"""

from __future__ import annotations

from services.dynamodb import DynamoDBLocal, Moto, dynamodb
from services.mariadb import MariaDB
from services.mongo import SecantusDB
from services.redis import Redis, Valkey
from services.server import Server, ServerFailed, ServiceMissing

__all__ = [
    "DynamoDBLocal",
    "MariaDB",
    "Moto",
    "Redis",
    "SecantusDB",
    "Server",
    "ServerFailed",
    "ServiceMissing",
    "Valkey",
    "dynamodb",
]
