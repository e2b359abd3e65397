"""Find the roles that have a right, for error messages. The rights are read from sql/roles.sql, which grants them."""

from __future__ import annotations

import re
from functools import cache

from pgjobq.postgres.script import sql_dir

ROLES = ("pgjobq_enqueue", "pgjobq_read", "pgjobq_work", "pgjobq_admin")
_MAY = re.compile(r"\('(pgjobq_[\w, ]+)',\s*'\{([\w,\s]+)\}'")  # ('role, role', '{function, function}')
_SELECT = re.compile(r"grant select on ([\w,\s]+?)\s+to ([\w,\s]+);")


@cache
def rights() -> dict[str, list[str]]:
    """Return the roles that may call each function or read each view."""
    text = (sql_dir() / "roles.sql").read_text()
    granted = [*_MAY.findall(text), *((roles, names) for names, roles in _SELECT.findall(text))]
    return {name: _words(roles) for roles, names in granted for name in _words(names)}


def needed_for(message: str) -> str:
    """Return the remedy for a missing right. It works with PostgreSQL's message in any language."""
    known = rights()
    roles = next((known[word] for word in re.findall(r"\w+", message) if word in known), None)
    if roles is None and "schema" in message:
        roles = list(ROLES)
    if roles is None:
        return "connect as the owner of the schema"
    *others, last = roles
    return f"grant the user the role {', '.join(others)} or {last}" if others else f"grant the user the role {last}"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)
