"""Reset locks and connections in a forked child, before it runs anything else.

A forked child inherits a copy of every lock. If another thread of the parent held a lock, nothing releases the copy in
the child. The child also inherits the parent's sockets. Anything that it sends on them corrupts the parent's
connections, and while it keeps them open, the server believes that a dead parent is alive. The child therefore closes
these sockets without sending anything, and objects that hold locks or connections create new ones.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class HasSocket(Protocol):
    """A connection. Its fileno() raises if it is closed."""

    def fileno(self) -> int:
        """Return the file descriptor of its socket."""


class Renewable(Protocol):
    """An object that holds locks, threads or connections of its process."""

    def after_fork(self) -> None:
        """Reset the object in a new child, where no other thread runs. Must not block."""


class Holdable(Protocol):
    """An object that must be at rest while the process forks."""

    def before_fork(self) -> None:
        """Bring the object to rest within a second."""

    def after_fork_in_parent(self) -> None:
        """Let the object continue."""


_sockets: WeakSet[HasSocket] = WeakSet()
_held: WeakSet[Holdable] = WeakSet()
_renewed: WeakSet[Renewable] = WeakSet()


def close_in_child(connection: HasSocket) -> None:
    """Make each forked child close this connection's socket without sending anything. Keeps a weak reference."""
    _sockets.add(connection)


def renew_in_child(owner: Renewable) -> None:
    """Make each forked child call owner.after_fork(). Keeps a weak reference."""
    _renewed.add(owner)


def hold_for_fork(owner: Holdable) -> None:
    """Call owner.before_fork() before, and owner.after_fork_in_parent() after each fork. Keeps a weak reference."""
    _held.add(owner)


def _come_to_rest() -> None:
    for owner in list(_held):
        owner.before_fork()


def _go_on() -> None:
    for owner in list(_held):
        owner.after_fork_in_parent()


def _begin_again() -> None:
    # The socket's descriptor becomes /dev/null, so that code that still uses the connection cannot touch another file.
    null = os.open(os.devnull, os.O_RDWR)
    for connection in list(_sockets):
        with suppress(Exception):  # the connection is closed; each driver raises its own exception
            os.dup2(null, connection.fileno(), inheritable=False)
    os.close(null)
    _sockets.clear()
    for owner in list(_renewed):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_come_to_rest, after_in_parent=_go_on, after_in_child=_begin_again)
