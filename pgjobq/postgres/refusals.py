"""Why a server that answers refuses a connection: libpq gives no code for it, only the server's words."""

from __future__ import annotations

import re

# Of PostgreSQL and PgBouncer. A server that speaks another language is understood by its FATAL alone.
_REFUSALS = (
    (r"password authentication failed|no password supplied|password was not accepted|auth failed|wrong password",
     "give the right user and password: in the DSN, PGPASSWORD or ~/.pgpass"),
    (r'role "[^"]*" does not exist|no such user', "create the role, or name another user in the DSN"),
    (r'role "[^"]*" is not permitted to log in', "connect as a user who may log in, and is a member of the role"),
    (r"no pg_hba.conf entry|pg_hba.conf rejects|authentication failed",
     "have the server's pg_hba.conf let this user in, from this host and to this database"),
    (r'database "[^"]*" does not exist|no such database', "create the database, or name another in the DSN"),
    (r"permission denied for database", "grant connect on the database to the user"),
    (r"too many clients|too many connections|connection slots are reserved|no more connections allowed",
     "raise max_connections or the limit of the role or database, or open fewer connections"),
    (r"the database system is (starting up|shutting down|not yet accepting|in recovery)", "try again in a moment"),
)  # fmt: skip


def refusal(message: str) -> str | None:
    """The message for a connection that the server refused; None when it gave no answer at all."""
    for pattern, remedy in _REFUSALS:
        if re.search(pattern, message):
            return f"PostgreSQL refuses the connection: {_brief(message)}; {remedy}"
    if re.search(r"\bFATAL\b", message):
        return f"PostgreSQL refuses the connection: {_brief(message)}"
    return None


def _brief(message: str) -> str:
    """The server's words, without libpq's about the way there."""
    return re.split(r"(?:FATAL|failed):\s*", message)[-1].rstrip(".")
