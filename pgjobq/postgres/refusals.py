"""Explain why a server refused a connection. libpq gives no error code for this, only the server's message."""

from __future__ import annotations

import re

# Messages of PostgreSQL and PgBouncer. In other languages only the word FATAL is recognized.
_REFUSALS = (
    (r"password authentication failed|no password supplied|password was not accepted|auth failed|wrong password",
     "set the right user and password in the DSN, PGPASSWORD or ~/.pgpass"),
    (r'role "[^"]*" does not exist|no such user', "create the role, or use another user in the DSN"),
    (r'role "[^"]*" is not permitted to log in', "use a user that may log in and is a member of the role"),
    (r"no pg_hba.conf entry|pg_hba.conf rejects|authentication failed",
     "allow this user, host and database in the server's pg_hba.conf"),
    (r'database "[^"]*" does not exist|no such database', "create the database, or use another one in the DSN"),
    (r"permission denied for database", "grant connect on the database to the user"),
    (r"too many clients|too many connections|connection slots are reserved|no more connections allowed",
     "raise max_connections or the limit of the role or database, or open fewer connections"),
    (r"the database system is (starting up|shutting down|not yet accepting|in recovery)", "try again in a moment"),
)  # fmt: skip


def refusal(message: str) -> str | None:
    """Return the error message for a connection that the server refused, or None if the server did not answer."""
    for pattern, remedy in _REFUSALS:
        if re.search(pattern, message):
            return f"PostgreSQL refuses the connection: {_brief(message)}; {remedy}"
    if re.search(r"\bFATAL\b", message):
        return f"PostgreSQL refuses the connection: {_brief(message)}"
    return None


def _brief(message: str) -> str:
    """Return the server's part of the message, without libpq's part about the connection attempt."""
    return re.split(r"(?:FATAL|failed):\s*", message)[-1].rstrip(".")
