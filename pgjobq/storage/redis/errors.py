"""Translate errors of Redis to pgjobq's errors, whose messages name the remedy."""

from __future__ import annotations

import re

from redis.exceptions import AuthenticationError, ConnectionError, RedisError, TimeoutError  # noqa: A004  # its names

from pgjobq.errors import PgjobqError, StorageError, StorageUnavailable

# In an error of a script, Redis 6 puts the code in the middle of the message.
_CODE = re.compile(r"\b([A-Z]{3,}) ")
# Temporary errors: a failover, a starting server, a slow script of another client, a full disk.
_PASSING = {"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNKILLABLE", "MISCONF", "NOREPLICAS"}
_MENDS = {
    "READONLY": "it is a replica and cannot store jobs; use the primary",
    "OOM": "it has no memory left; prune jobs, or raise its maxmemory",
    "NOPERM": "grant the user the keys and channels that begin with the prefix, and the commands of @all",
    "NOAUTH": "set the user and password in the URL",
    "WRONGPASS": "check user and password",
    "WRONGTYPE": "a key with this prefix is not pgjobq's; use another prefix",
    "MOVED": "it is part of a cluster; use a redis.cluster.RedisCluster instead of a URL",
    "ASK": "its cluster moves these keys; try again",
}
_AWAY = {"READONLY", "ASK"}  # after a failover, and while a cluster moves keys, another attempt finds the right server


def translate(error: Exception, server: str) -> PgjobqError:
    """Return the pgjobq error for an error of redis or of the system. server: its name, without password."""
    message = " ".join(str(error).split()) or type(error).__name__
    code = code_of(error)
    if code in _MENDS:
        kind = StorageUnavailable if code in _AWAY else StorageError
        return kind(f"Redis at {server}: {_MENDS[code]} ({message})")
    if isinstance(error, AuthenticationError):
        return StorageError(f"Redis at {server}: {message}; check user and password")
    if isinstance(error, ConnectionError | TimeoutError | OSError) or code in _PASSING:
        return StorageUnavailable(f"Redis at {server} does not answer: {message}")
    return StorageError(f"Redis at {server}: {message}")


def code_of(error: Exception) -> str:
    """Return the code of an error of Redis, or "". redis-py removes the code if it has a class for the error."""
    if not isinstance(error, RedisError):
        return ""
    if (kind := _CLASSES.get(type(error).__name__)) is not None:
        return kind
    known = _MENDS.keys() | _PASSING
    return next((code for code in _CODE.findall(str(error) + " ") if code in known), "")


_CLASSES = {
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": "OOM",
    "NoPermissionError": "NOPERM",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
}
