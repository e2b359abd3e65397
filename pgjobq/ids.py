"""The ids of jobs."""

from __future__ import annotations

import os
import struct
import threading
import time

_id_lock = threading.Lock()
_last_id = 0
_tails: list[int] = []  # random 64-bit numbers; 64 are fetched at once, because a system call is slow


def _forget_ids() -> None:
    # A forked child must not reuse the parent's tails, or wait for a lock that a thread of the parent held.
    global _id_lock  # noqa: PLW0603  # a new child has only one thread
    _id_lock = threading.Lock()
    _tails.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_ids)


def new_job_id() -> str:
    """Return a new UUID version 7 as a string. Within a process each id sorts after the one before."""
    # 48 bits of milliseconds, then 12 bits of the fraction of a millisecond. It always grows.
    global _last_id  # noqa: PLW0603  # guarded by _id_lock
    millis, nanos = divmod(time.time_ns(), 1_000_000)
    stamp = millis << 12 | (nanos << 12) // 1_000_000
    with _id_lock:
        if stamp <= _last_id:
            stamp = _last_id + 1
        _last_id = stamp
        if not _tails:
            _tails.extend(struct.unpack("64Q", os.urandom(512)))
        tail = _tails.pop() >> 2 | 1 << 63
    text = f"{stamp >> 12:012x}7{stamp & 0xFFF:03x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class JobId(str):  # noqa: SLOT000  # outcome has a default, and a slot cannot have one
    """The id of a job that was enqueued: a str that says what the call did.

    outcome is "added", or with a unique key that another job has "kept" or "replaced": then the id is that job's.
    """

    outcome = "added"

    @classmethod
    def with_outcome(cls, job_id: str, outcome: str) -> JobId:
        """Make an id with this outcome."""
        made = cls(job_id)
        made.outcome = outcome
        return made
