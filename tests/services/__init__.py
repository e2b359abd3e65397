"""The database servers other than PostgreSQL that the tests use. Each server has its own folder and port.

`make services` installs them: it runs `python -m services` in the parent of this folder. Each server is a child of the
process that starts it, and ends when that process ends, even if it is killed.
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
