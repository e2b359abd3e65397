"""The doorbell: it rings when somebody sleeps who wants the job, and no job is missed while falling asleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgjobq import Registry, Worker, job
from pgjobq.postgres.listener import Heard, Listener
from pgjobq.postgres.pool import readable
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
MakeStorage = Callable[..., PostgresStorage]


@pytest.fixture
def heard(connect: Connect) -> Callable[[], list[str]]:
    """What a listener on the schema's channel has heard since it was asked last."""
    listener = connect()
    listener.execute("listen pgjobq")
    return lambda: [notification.payload for notification in listener.notifies(timeout=0.2)]


class Sleeper:
    """A worker's listener, by hand: it registers, listens on its own channel, and is in whatever state is asked."""

    def __init__(self, conn: Connection, queues: list[str] | None = None) -> None:
        self.conn, self.queues = conn, queues
        row = conn.execute("select register_worker('by hand', %s)", [queues]).fetchone()
        assert row is not None
        self.id = int(row[0])
        self.channel = f"pgjobq:{self.id}"
        self.state, self.busy, self.alarm = "awake", False, 60.0
        conn.execute(f'listen "{self.channel}"; listen "{self.channel}!"; listen "{self.channel}?"')

    def tell(self, state: str) -> Any:
        """Be in that state; what set_worker_state answers."""
        self.state = state
        query = "select open, pollers, on_watch from set_worker_state(%s, %s, %s, %s, %s, %s)"
        arguments = [self.id, state, self.busy, self.queues, self.alarm, self.channel]
        return self.conn.execute(query, arguments).fetchone()

    def arm(self, alarm: float = 60) -> None:
        """Fall asleep."""
        self.alarm = alarm
        self.tell("asleep")

    def poll(self) -> bool:
        """Poll; whether this is the one on watch."""
        return bool(self.tell("polling")[2])

    def disarm(self) -> None:
        """Neither."""
        self.tell("awake")

    def mark_busy(self, busy: bool) -> None:
        """Run something."""
        self.busy = busy
        self.tell(self.state)

    def heard(self) -> list[str]:
        """Payloads since it was asked last; a call for help is !."""
        found = self.conn.notifies(timeout=0.2)
        return [_said(notification.channel, notification.payload) for notification in found]


def _said(channel: str, payload: str) -> str:
    """The queue of a job; ! for a call for help; nothing for a worker to be watched."""
    return "!" if channel.endswith("!") else "" if channel.endswith("?") else payload


@pytest.fixture
def sleeper(connect: Connect) -> Callable[..., Sleeper]:
    """Makes workers by hand."""
    return lambda queues=None: Sleeper(connect(), queues)


def test_rings_only_for_a_sleeper_who_wants_the_job(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    conn.execute("select enqueue_job('t')")
    worker = sleeper(["mail"])
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == []  # it is awake
    worker.arm()
    conn.execute("select enqueue_job('t', queue => 'other')")
    assert worker.heard() == []
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == ["mail"]
    conn.execute("select enqueue_job('t', queue => 'mail', execute_at => now() + '1 hour')")
    assert worker.heard() == []  # it looks by itself before
    conn.execute("select enqueue_job('t', queue => 'mail', execute_at => now() + '30 s')")
    assert worker.heard() == ["mail"]
    worker.queues = None
    worker.arm()
    conn.execute("select enqueue_jobs('{a,b,c}', queues => '{x,x,y}')")
    assert sorted(worker.heard()) == ["x", "y"]
    worker.disarm()
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == []


def test_sleeper_without_a_channel_of_its_own_hears_the_schema_s(
    conn: Connection, connect: Connect, heard: Callable[[], list[str]]
) -> None:
    connect().execute("select set_worker_state(register_worker('psql'), 'asleep', queues => '{mail}')")
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert heard() == ["mail"]


def test_rings_for_whatever_becomes_claimable(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    conn.execute("select enqueue_jobs('{t,t,t}', job_ids => '{a,b,c}')")
    gone = sleeper()
    row = conn.execute("select claim_id from claim_jobs(%s, null, 3)", [gone.id]).fetchone()
    assert row is not None
    worker = sleeper()
    worker.arm()
    conn.execute("select retry_job('a', 0, null, %s)", [row[0]])
    assert worker.heard() == ["default"]
    conn.execute("select release_jobs('{b}', %s)", [[row[0]]])
    assert worker.heard() == ["default"]
    gone.conn.execute("select retire_worker(%s)", [gone.id])
    assert worker.heard() == ["default"]
    conn.execute("update jobs set queue = 'other' where id = 'a'")
    assert worker.heard() == ["other"]


def test_claiming_and_settling_never_ring(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    worker = sleeper()
    worker.arm()
    claimed = conn.execute("select claim_id from claim_jobs(%s, null, 2)", [worker.id]).fetchall()
    conn.execute("select complete_jobs(%s, '{a}', %s)", [worker.id, list(claimed[0])])
    conn.execute("select fail_job('b', %s, 'x')", list(claimed[1]))
    assert worker.heard() == []


def test_one_is_rung_and_one_looks_after_it(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    workers = [sleeper() for _ in range(4)]
    for worker in workers:
        worker.arm()
    conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers] == [["default"], [""], [], []]
    workers[0].disarm()
    conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers] == [[], ["default"], [""], []]
    workers[1].conn.close()  # its keys fall with it
    deadline = time.monotonic() + 5
    while conn.execute("select is_held('asleep', %s)", [workers[1].id]).fetchone() == (True,):
        assert time.monotonic() < deadline
    conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers[2:]] == [["default"], [""]]


def test_nobody_is_rung_while_one_polls_and_somebody_when_it_dies(
    conn: Connection, sleeper: Callable[..., Sleeper]
) -> None:
    poller, worker, choosy = sleeper(), sleeper(), sleeper(["mail"])
    worker.arm()
    choosy.arm()
    assert poller.poll()
    conn.execute("select enqueue_job('t'), enqueue_job('t', queue => 'mail')")
    assert worker.heard() + choosy.heard() == []
    poller.conn.close()
    deadline = time.monotonic() + 5
    while conn.execute("select is_held('polling', %s)", [poller.id]).fetchone() == (True,):
        assert time.monotonic() < deadline
    conn.execute("select enqueue_job('t')")
    assert worker.heard() == ["default"]


@pytest.mark.parametrize("then", ["set_worker_state(%s, 'awake')", "retire_worker(%s)"])
def test_one_that_polled_and_stops_calls_all_who_want_its_queues(sleeper: Callable[..., Sleeper], then: str) -> None:
    mail, other, everything = sleeper(["mail"]), sleeper(["other"]), sleeper()
    poller = sleeper(["mail", "paper"])
    for worker in (mail, other, everything):
        worker.arm()
    poller.arm()
    poller.disarm()
    assert mail.heard() == []  # it only slept: nobody counted on it
    poller.poll()
    assert everything.tell("asleep")[1] == [poller.id]
    assert other.tell("asleep")[1] == []
    assert poller.tell("polling")[1] == []
    poller.conn.execute(f"select {then}", [poller.id])
    assert [worker.heard() for worker in (mail, other, everything)] == [["!"], [], ["!"]]


def test_one_that_polls_for_other_queues_than_before_keeps_no_old_key(
    conn: Connection, sleeper: Callable[..., Sleeper]
) -> None:
    poller, worker = sleeper(), sleeper()
    worker.arm()
    assert poller.poll()
    poller.queues = ["other"]
    poller.arm()
    conn.execute("select enqueue_job('t')")
    assert worker.heard() == ["default"]


def test_one_that_polls_for_other_queues_keeps_nobody_asleep(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    poller, worker = sleeper(["mail"]), sleeper()
    worker.arm()
    assert poller.poll()
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == []
    conn.execute("select enqueue_job('t', queue => 'other')")
    assert worker.heard() == ["other"]


def test_busy_workers_are_rung_last(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    first, second = sleeper(), sleeper()
    first.arm()
    second.arm()
    first.mark_busy(True)
    conn.execute("select enqueue_job('t')")
    assert (first.heard(), second.heard()) == ([""], ["default"])
    second.mark_busy(True)
    conn.execute("select enqueue_job('t')")
    assert (first.heard(), second.heard()) == (["default"], [""])
    assert not first.poll()  # one that is busy is not on watch
    conn.execute("select enqueue_job('t')")
    assert second.heard() == []  # it is no less busy than the one that polls
    second.mark_busy(False)
    conn.execute("select enqueue_job('t')")
    assert second.heard() == ["default"]
    second.disarm()
    first.mark_busy(False)
    assert first.poll()
    second.arm()
    first.mark_busy(True)
    conn.execute("select enqueue_job('t')")
    assert second.heard() == ["default"]


def test_one_of_a_set_is_on_watch(sleeper: Callable[..., Sleeper]) -> None:
    first, second, choosy = sleeper(), sleeper(), sleeper(["mail"])
    assert first.poll()
    assert first.poll()
    assert not second.poll()
    assert choosy.poll()
    first.arm()
    assert second.poll()
    second.disarm()
    assert first.poll()


def test_call_for_help_reaches_one_sleeper(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    caller, poller, other, worker, spare = sleeper(["mail"]), sleeper(), sleeper(["other"]), sleeper(), sleeper()
    caller.poll()
    poller.poll()
    for asleep in (other, worker, spare):
        asleep.arm()
    conn.execute("select call_workers(%s, 'help')", [caller.id])
    assert [one.heard() for one in (caller, poller, other, worker, spare)] == [[], [], [], ["!"], [""]]
    conn.execute("select call_workers(%s, 'watch')", [worker.id])
    assert [one.heard() for one in (caller, poller, other, worker, spare)] == [[], [], [""], [], [""]]


def test_keys_do_not_pile_up(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    worker = sleeper()
    for _ in range(3):
        worker.arm()
        worker.poll()
        worker.mark_busy(True)
    worker.disarm()
    held = "select classid::regclass::text from pg_locks where locktype = 'advisory' and pid = %s"
    assert conn.execute(held, [worker.conn.info.backend_pid]).fetchall() == [("workers",)]
    worker.arm()
    worker.conn.execute("select retire_worker(%s)", [worker.id])
    assert conn.execute(held, [worker.conn.info.backend_pid]).fetchall() == []
    assert conn.execute("select count(*) from doorbell").fetchone() == (0,)


def test_snapshot_older_than_the_registration_rings_all_the_same(
    connect: Connect, heard: Callable[[], list[str]], sleeper: Callable[..., Sleeper]
) -> None:
    writer = connect(autocommit=False)
    writer.execute("set transaction isolation level repeatable read")
    writer.execute("select count(*) from jobs")  # takes its snapshot now
    sleeper().arm()
    writer.execute("select enqueue_job('t')")
    writer.commit()
    assert heard() == ["default"]


def test_snapshot_too_old_to_see_who_sleeps_notifies_nobody_who_is_not_there(
    connect: Connect, heard: Callable[[], list[str]], sleeper: Callable[..., Sleeper]
) -> None:
    writer, worker, poller = connect(autocommit=False), sleeper(["other"]), sleeper()

    def enqueue() -> list[str]:
        writer.execute("set transaction isolation level serializable")
        writer.execute("select enqueue_job('t')")
        writer.commit()
        return heard()

    assert enqueue() == []
    worker.arm()
    assert enqueue() == ["default"]  # it may serve this queue: its row may be younger than the snapshot
    poller.poll()
    assert enqueue() == []  # the key tells, whatever the snapshot, that one of every queue polls
    poller.disarm()
    assert enqueue() == ["default"]


def test_rollback_rings_for_nobody(connect: Connect, sleeper: Callable[..., Sleeper]) -> None:
    worker, writer = sleeper(), connect(autocommit=False)
    worker.arm()
    writer.execute("select enqueue_job('t')")
    writer.rollback()
    assert worker.heard() == []


def test_open_enqueues_shows_who_may_have_looked(connect: Connect) -> None:
    conn, writer = connect(), connect(autocommit=False)
    assert conn.execute("select open_transactions('jobs')").fetchone() == ([],)
    writer.execute("select enqueue_job('t')")
    row = conn.execute("select open_transactions('jobs')").fetchone()
    assert row is not None
    assert len(row[0]) == 1
    writer.rollback()
    assert conn.execute("select open_transactions('jobs')").fetchone() == ([],)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("looked", ["before", "after"])
def test_enqueue_open_while_the_worker_falls_asleep_is_not_missed(
    connect: Connect, make_storage: MakeStorage, isolation: str, looked: str
) -> None:
    """The race: the enqueue looks at the doorbell before or after the registration, and commits when all sleep."""
    storage = make_storage(poll_interval=3600)  # no fallback
    writer = connect(autocommit=False)
    writer.execute(f"set transaction isolation level {isolation}")
    writer.execute("select count(*) from jobs")
    if looked == "before":
        writer.execute("select enqueue_job('t', job_id => 'a')")
    claimed: list[str] = []

    def fall_asleep() -> None:
        while not claimed:
            jobs = storage.dequeue_many(1)
            claimed.extend(job.id for job in jobs)
            if not jobs:
                storage.wait(3600)

    worker = threading.Thread(target=fall_asleep, daemon=True)
    worker.start()
    watcher = connect()
    deadline = time.monotonic() + 5
    while watcher.execute("select count(*) from worker_status where asleep").fetchone() == (0,):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)  # past the last claim before sleep
    if looked == "after":
        writer.execute("select enqueue_job('t', job_id => 'a')")
    writer.commit()
    worker.join(3)
    assert claimed == ["a"]


def test_worker_polls_while_an_early_enqueue_is_open_and_sleeps_after(
    connect: Connect, make_storage: MakeStorage
) -> None:
    storage = make_storage(poll_interval=3600)
    writer = connect(autocommit=False)
    writer.execute("select enqueue_job('t')")
    assert storage.dequeue_many(1) == []
    storage.wait(10)  # registers, and notes the open transaction
    policy = storage._presence._policy
    assert len(policy.open) == 1
    began = time.monotonic()
    storage.wait(0.3)
    assert 0.25 < time.monotonic() - began < 2
    writer.rollback()
    storage.wait(10)  # returns, for the one it waited for has ended
    assert policy.open == set()


def test_scheduled_job_is_an_alarm(make_storage: MakeStorage, conn: Connection) -> None:
    storage = make_storage(poll_interval=3600)
    assert storage.dequeue_many(1) == []
    storage.wait(10)
    conn.execute("select enqueue_job('t', job_id => 'a', execute_at => now() + '0.5 s')")
    deadline = time.monotonic() + 5
    while not (jobs := storage.dequeue_many(1)):
        assert time.monotonic() < deadline
        storage.wait(3600)
    assert [job.id for job in jobs] == ["a"]


class Listening:
    """A storage whose thread claims and waits, as a worker's does; no fallback poll."""

    def __init__(self, storage: PostgresStorage) -> None:
        self.storage, self.claimed = storage, list[str]()
        self.looks = True
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while not self.claimed:
            if self.looks:
                self.claimed += [job.id for job in self.storage.dequeue_many(1)]
            if not self.claimed:
                self.looks = self.storage.wait(3600) is not False


def until(done: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@pytest.mark.parametrize("then", ["full", "asleep"])
def test_enqueue_that_counted_on_a_poller_is_not_missed_when_that_stops(
    connect: Connect, conn: Connection, make_storage: MakeStorage, then: str
) -> None:
    """It looked while one polled, and commits when that one polls no more: it has no room, or sleeps again."""
    poller = make_storage(poll_interval=3600)
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[10]))")
    assert len(poller.dequeue_many(10)) == 10  # as much as it asked for: it polls
    other = Listening(make_storage(poll_interval=3600)) if then == "full" else None
    if other is not None:
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (1,))
        time.sleep(0.3)  # past the last claim before sleep
    writer = connect(autocommit=False)
    writer.execute("select enqueue_job('t', job_id => 'late')")
    if other is not None:
        poller.note_load(busy=True, full=True)
    else:
        other = Listening(poller)
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (1,))
    time.sleep(0.3)
    assert other.claimed == []
    writer.commit()
    until(lambda: other.claimed == ["late"])


def test_enqueue_that_counted_on_a_poller_that_died_is_seen_by_one_that_fell_asleep_beside_it(
    connect: Connect, conn: Connection, make_storage: MakeStorage, sleeper: Callable[..., Sleeper], registry: Registry
) -> None:
    """It is open for seconds after the death, while a third worker has a job that takes hours."""
    ran = threading.Event()

    @job(type="t", registry=registry)
    def run() -> None:
        ran.set()

    conn.execute("select enqueue_job('long', queue => 'else')")
    conn.execute("select from claim_jobs(%s)", [sleeper(["else"]).id])
    poller = sleeper()
    assert poller.poll()

    def asked_last(function: str) -> int:
        """How many sessions called this function last, and have their answer."""
        query = """select count(*) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid() and state = 'idle' and query like %s"""
        row = conn.execute(query, [f"%.{function}(%"]).fetchone()
        assert row is not None
        return int(row[0])

    worker = Worker(make_storage(poll_interval=3600), registry=registry)
    worker.start()
    try:
        until(lambda: asked_last("next_due") == 1)  # it sleeps
        writer = connect(autocommit=False)
        writer.execute("select enqueue_job('t')")
        poller.conn.close()
        until(lambda: asked_last("open_transactions") == 1)  # it falls asleep anew, and waits for the writer
        writer.commit()
        assert ran.wait(1)
    finally:
        worker.stop()


@pytest.mark.parametrize("then", ["stop", "pause"])
def test_worker_that_stops_or_pauses_tells_the_others(
    conn: Connection, make_storage: MakeStorage, registry: Registry, then: str
) -> None:
    """Its job goes on within the grace; nobody counts on it for others any more."""
    go_on, done = threading.Event(), threading.Event()

    @job(type="long", registry=registry)
    def run_long() -> None:
        go_on.wait(10)

    @job(type="t", registry=registry)
    def run() -> None:
        done.set()

    first, second = (Worker(make_storage(poll_interval=3600), registry=registry, grace=10) for _ in range(2))
    first.start()
    stopping = threading.Thread(target=getattr(first, then))
    try:
        conn.execute("select enqueue_job('long')")
        until(lambda: conn.execute("select count(*) from jobs where status = 'running'").fetchone() == (1,))
        second.start()
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (2,))
        stopping.start()
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (1,))
        conn.execute("select enqueue_job('t')")
        assert done.wait(3)
    finally:
        go_on.set()
        stopping.join(10)
        first.stop()
        second.stop()


def test_storage_asked_for_other_queues_lets_others_be_rung_for_the_old_ones(
    conn: Connection, make_storage: MakeStorage
) -> None:
    storage = make_storage(poll_interval=3600)
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[10]))")
    assert len(storage.dequeue_many(10)) == 10  # as much as it asked for: it polls
    assert conn.execute("select is_held('polling', 0)").fetchone() == (True,)
    storage.wait(0.01, ["else"])
    assert conn.execute("select is_held('polling', 0)").fetchone() == (False,)


def test_job_of_a_worker_that_was_rung_and_died_is_seen_by_the_one_that_looks_after_it(
    conn: Connection, make_storage: MakeStorage, sleeper: Callable[..., Sleeper], registry: Registry
) -> None:
    ran = threading.Event()

    @job(type="t", registry=registry)
    def run() -> None:
        ran.set()

    doomed = sleeper()
    doomed.arm()
    worker = Worker(make_storage(poll_interval=3600), registry=registry)
    worker.start()
    try:
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (2,))
        time.sleep(0.3)
        conn.execute("select enqueue_job('t')")  # rings the first, which never claims
        doomed.conn.close()
        assert ran.wait(3)
    finally:
        worker.stop()


def test_bell_that_another_thread_reads_wakes_the_one_that_sleeps(conn: Connection, make_storage: MakeStorage) -> None:
    """Maintenance looks at the listener's socket, too: it may read the notification before the sleeper sees it."""
    storage = make_storage(poll_interval=3600)
    assert storage.dequeue_many(1) == []
    storage.wait(10)  # registers
    listener = storage._presence._listener
    assert listener is not None
    conn.execute("select enqueue_job('t')")
    until(lambda: _readable(listener))
    listener.keep()  # reads it
    assert not _readable(listener)
    listener._heard = Heard()  # as when the sleeper looked just before
    began = time.monotonic()
    assert storage.wait(5) is not False
    assert time.monotonic() - began < 4


def _readable(listener: Listener) -> bool:
    assert listener._conn is not None
    return readable(listener._conn.fileno())
