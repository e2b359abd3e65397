"""What Redis said, as an error of pgjobq's that names the mend."""

from __future__ import annotations

import re

from redis.exceptions import AuthenticationError, ConnectionError, RedisError, TimeoutError  # noqa: A004  # its names

from pgjobq.errors import PgjobqError, StorageError, StorageUnavailable

# Redis 6 puts the code of an error within a script amid its own words.
_CODE = re.compile(r"\b([A-Z]{3,}) ")
# They pass: a failover, a start, a script of somebody's that takes long, a disk that is full.
_PASSING = {"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNKILLABLE", "MISCONF", "NOREPLICAS"}
_MENDS = {
    "READONLY": "it is a replica, and takes no jobs; give the primary",
    "OOM": "it has no memory left; prune jobs, or raise its maxmemory",
    "NOPERM": "grant the user the keys and channels that begin with the prefix, and the commands of @all",
    "NOAUTH": "give user and password in the URL",
    "WRONGPASS": "check user and password",
    "WRONGTYPE": "a key with this prefix is not pgjobq's; give another prefix",
    "MOVED": "it is part of a cluster; give a redis.cluster.RedisCluster in place of a URL",
    "ASK": "its cluster moves these keys; try again",
}
_AWAY = {"READONLY", "ASK"}  # after a failover, and while a cluster moves keys, another try finds the right server


def translate(error: Exception, server: str) -> PgjobqError:
    """The pgjobq error for one of redis' or the system's; server: its name, without password."""
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
    """The code at the head of an answer of Redis', or "". redis-py takes it off those that it has classes for."""
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
