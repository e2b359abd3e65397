"""The functions that the contract runs in child processes. This module does not need pytest."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing.connection import Connection

from pgjobq.errors import PgjobqError
from pgjobq.storage.base import BaseStorage

Answer = list[tuple[str, int]] | str
TRIES = 20  # empty answers in a row after which a child stops


def drain(make_storage: Callable[[], BaseStorage], pipe: Connection[Answer, str]) -> None:
    """Report ready, wait for a message, start and complete jobs until there are none, and send their starts."""
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
    """Start and complete jobs, alternately one and several at once. Return (id, attempts) of each start."""
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


def stand_still(make_storage: Callable[[], BaseStorage], pipe: Connection[Answer, str]) -> None:
    """Start one job and send it. Wait for a message, complete the job, and send the result."""
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
    """Start up to jobs jobs, send them, and hold them until the process is killed."""
    storage = make_storage()
    pipe.send([(job.id, job.attempts) for job in storage.dequeue_many(jobs)])
    signal.pause()
