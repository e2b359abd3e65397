"""DSNs: what is no DSN is refused without showing it, because a part of it may be the password."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from pgjobq.checks import is_cut
from pgjobq.errors import ConfigurationError
from pgjobq.postgres.pool import parameters

_FORM = "give postgresql://user@host/database, and percent-encode what is special in user and password"
# What no host name and no port holds; a host that begins with / or @ is a socket. Several are separated by commas.
_NO_HOST = re.compile(r"""[\s;'"@/\\=?#&]""")
_NO_PORT = re.compile(r"[^\d,\s]")


def connection_parameters(conninfo: str, application_name: str) -> dict[str, Any]:
    """The keyword arguments for psycopg.connect. Raises ConfigurationError for what is no conninfo."""
    if "://" in conninfo and is_cut(conninfo, "/"):
        raise ConfigurationError(f"dsn: an @ or / within the password ends it too early; {_FORM}")
    try:
        found = parameters(conninfo, application_name)
    except (psycopg.Error, UnicodeError) as error:
        raise ConfigurationError(f"dsn: {_without_quoted(str(error))}; {_FORM}") from None
    for host in str(found.get("host") or "").split(","):
        if not host.startswith(("/", "@")) and _NO_HOST.search(host):
            raise ConfigurationError(f"dsn: the host holds what no host's name does; {_FORM}")
    if _NO_PORT.search(str(found.get("port") or "")):
        raise ConfigurationError(f"dsn: the port is no number; {_FORM}")
    if ":" in str(found.get("user") or ""):
        raise ConfigurationError(f"dsn: the user's name holds a colon: is it the one before the password? {_FORM}")
    return found


def _without_quoted(message: str) -> str:
    """What libpq says, without what it quotes."""
    first, last = message.find('"'), message.rfind('"')
    text = message if first < 0 else f"{message[:first]}...{message[last + 1 :]}"
    return " ".join(text.split())
