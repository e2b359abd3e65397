"""The functions that the contract runs in child processes. This module does not need pytest."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing.connection import Connection

from pgjobq.errors import PgjobqError
from pgjobq.storage.base import BaseStorage

Answer = list[tuple[str, int]] | str
TRIES = 20  # a child stops after this many empty results in a row


def drain(make_storage: Callable[[], BaseStorage], pipe: Connection[Answer, str]) -> None:
    """Send "ready", wait for a message, start and complete all jobs, and send their starts."""
    storage = make_storage()
    try:
        storage.get_job("nobody")
        pipe.send("ready")
        pipe.recv()
        pipe.send(drained(storage))
    finally:
        storage.leave()
        storage.close()


def drained(storage: BaseStorage) -> list[tuple[str, int]]:
    """Start and complete jobs until none is due. Return the (id, attempts) of each start."""
    starts: list[tuple[str, int]] = []
    empty = 0
    while empty < TRIES:
        one = storage.dequeue()
        jobs = ([] if one is None else [one]) + storage.dequeue_many(3)
        empty = 0 if jobs else empty + 1
        starts += [(job.id, job.attempts) for job in jobs]
        for job in jobs:
            storage.complete(job.id)
    return starts


def be_suspended(make_storage: Callable[[], BaseStorage], pipe: Connection[Answer, str]) -> None:
    """Start one job and send it. Wait for a message, then complete the job and send the result.

    The test suspends the process while it waits.
    """
    storage = make_storage()
    try:
        jobs = storage.dequeue_many(1)
        pipe.send([(job.id, job.attempts) for job in jobs])
        pipe.recv()
        try:
            storage.complete(jobs[0].id)
            pipe.send("completed")
        except PgjobqError as error:
            pipe.send(type(error).__name__)
    finally:
        storage.close()


def hold(make_storage: Callable[[], BaseStorage], pipe: Connection[Answer, str], jobs: int) -> None:
    """Start up to `jobs` jobs, send them, and hold them until the process is killed."""
    storage = make_storage()
    pipe.send([(job.id, job.attempts) for job in storage.dequeue_many(jobs)])
    signal.pause()
