"""Parse DSNs. The error for an invalid DSN does not show it, because any part of it may be the password."""

from __future__ import annotations

import os
import re
from typing import Any

import psycopg
from psycopg import conninfo as ci

from pgjobq.checks import is_cut
from pgjobq.errors import ConfigurationError
from pgjobq.postgres.pool import parameters

_FORM = "use postgresql://user@host/database, and percent-encode special characters in the user and the password"
# Characters that no host name and no port contains. A host that begins with / or @ is a socket. Commas separate hosts.
_NO_HOST = re.compile(r"""[\s;'"@/\\=?#&]""")
_NO_PORT = re.compile(r"[^\d,\s]")


def connection_parameters(conninfo: str, application_name: str) -> dict[str, Any]:
    """Return the keyword arguments of psycopg.connect. Raises ConfigurationError for an invalid conninfo."""
    if "://" in conninfo and is_cut(conninfo, "/"):
        raise ConfigurationError(f"dsn: an unencoded @ or / in the password ends it too early; {_FORM}")
    try:
        found = parameters(conninfo, application_name)
    except (psycopg.Error, UnicodeError) as error:
        raise ConfigurationError(f"dsn: {_without_quoted(str(error))}; {_FORM}") from None
    for host in str(found.get("host") or "").split(","):
        if not host.startswith(("/", "@")) and _NO_HOST.search(host):
            raise ConfigurationError(f"dsn: the host contains a character that no host name may contain; {_FORM}")
    if _NO_PORT.search(str(found.get("port") or "")):
        raise ConfigurationError(f"dsn: the port is not a number; {_FORM}")
    if ":" in str(found.get("user") or ""):
        raise ConfigurationError(f"dsn: the user name contains a colon; {_FORM}")
    return found


def ends_with_client(conninfo: str) -> str:
    """Return a conninfo whose sessions end a statement within a second when the client has died.

    Without this, the server runs the statement to its end, and keeps its locks. Servers on Windows cannot do this.
    """
    given = ci.conninfo_to_dict(conninfo).get("options") or os.environ.get("PGOPTIONS") or ""
    return ci.make_conninfo(conninfo, options=f"{given} -c client_connection_check_interval=1000".strip())


def _without_quoted(message: str) -> str:
    """Return libpq's message without the text that it quotes."""
    first, last = message.find('"'), message.rfind('"')
    text = message if first < 0 else f"{message[:first]}...{message[last + 1 :]}"
    return " ".join(text.split())
