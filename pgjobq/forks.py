"""What a forked child does with what it inherits, before it runs anything else.

A child has a copy of every lock, also of those that other threads of its parent hold and that nothing releases in the
child, and it has the parent's sockets. What it sends on them corrupts the parent's connections, and as long as it
keeps them open, the server takes a dead parent for alive. So the child closes these sockets without a word to the
server, and objects that hold locks or connections begin again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class HasSocket(Protocol):
    """A connection; fileno() raises when it is closed."""

    def fileno(self) -> int:
        """The descriptor of its socket."""


class Renewable(Protocol):
    """What holds locks, threads or connections of its process."""

    def after_fork(self) -> None:
        """Called in a child that was just forked, where no other thread runs: begin again, and wait for nothing."""


class Holdable(Protocol):
    """What must not be in use while the process is forked."""

    def before_fork(self) -> None:
        """Come to rest, within a second."""

    def after_fork_in_parent(self) -> None:
        """Go on."""


_sockets: WeakSet[HasSocket] = WeakSet()
_held: WeakSet[Holdable] = WeakSet()
_renewed: WeakSet[Renewable] = WeakSet()


def close_in_child(connection: HasSocket) -> None:
    """Have each forked child close this connection's socket, and say nothing to the server. Holds it weakly."""
    _sockets.add(connection)


def renew_in_child(owner: Renewable) -> None:
    """Have each forked child call owner.after_fork(). Holds it weakly."""
    _renewed.add(owner)


def hold_for_fork(owner: Holdable) -> None:
    """Have each fork call owner.before_fork(), and owner.after_fork_in_parent() after it. Holds it weakly."""
    _held.add(owner)


def _come_to_rest() -> None:
    for owner in list(_held):
        owner.before_fork()


def _go_on() -> None:
    for owner in list(_held):
        owner.after_fork_in_parent()


def _begin_again() -> None:
    # /dev/null takes the socket's number: whatever still uses or closes the connection can hurt no other file.
    null = os.open(os.devnull, os.O_RDWR)
    for connection in list(_sockets):
        with suppress(Exception):  # it is closed, in a way of its driver's own
            os.dup2(null, connection.fileno(), inheritable=False)
    os.close(null)
    _sockets.clear()
    for owner in list(_renewed):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_come_to_rest, after_in_parent=_go_on, after_in_child=_begin_again)
