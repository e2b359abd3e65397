"""Tests of SleepPolicy in a simulated environment: they check its actions for given answers and times."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from helpers.sleep_world import World
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobq.postgres.sleep import Action, Ask, Call, Look, Pause, SleepPolicy, Tell


def about(seconds: float) -> Any:
    """Return a value that is equal to this number of seconds within a small tolerance."""
    return pytest.approx(seconds, abs=0.5)


@pytest.fixture
def asleep() -> World:
    """Return the world of a worker that sleeps because there are no jobs."""
    world = World()
    world.run(0.5)
    assert world.policy.state == "asleep"
    return world


def test_falls_asleep_in_steps_and_claims_when_a_transaction_has_ended() -> None:
    """It claims, registers, claims again, checks the open transactions, claims after each ends, and then sleeps."""
    world = World(open=("7", "8"))
    assert world.run(0.001) == [Look(), Tell("asleep"), Look(), Ask("due"), Pause(0.002)]
    steps = [action.seconds for action in world.run(0.5) if isinstance(action, Pause)]
    assert steps[:7] == [0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]
    for left in (("8",), ()):
        world.open = left
        since = world.now
        world.run(0.2)
        assert len(world.looks(since)) == 1
        assert world.looks(since)[0] <= 0.05
    assert world.run(0) == [Pause(about(30))]  # it has read the schedule again


def test_alarm_of_a_job_that_an_open_transaction_scheduled() -> None:
    """The transaction saw no key and notified nothing, so the worker reads the schedule when it has ended."""
    world = World(open=("7",))
    world.run(1)
    world.open, world.due = (), world.now + 5
    since = world.now
    world.run(5.5)
    assert world.looks(since)[-1] == 5


def test_new_transactions_are_not_waited_for(asleep: World) -> None:
    """Transactions that began after it registered its state will notify it."""
    asleep.open = ("9",)
    assert asleep.run(5) == [Pause(about(29.5))]


def test_new_registration_is_repeated() -> None:
    """The first answer, None, means that enqueues may not have seen the row yet."""
    world = World(new=True, open=("7",))
    done = [action for action in world.run(0.1) if not isinstance(action, Pause | Ask)]
    assert done == [Look(), Tell("asleep"), Tell("asleep"), Look()]


def test_registration_that_is_always_new_does_not_spin(asleep: World) -> None:
    """There is a pause between two tries, whatever the database answers."""
    asleep.policy.called()
    for _ in range(100):
        asleep.new = True
        before = asleep.now
        for _ in range(4):
            asleep.do(asleep.policy.next(asleep.now))
        assert asleep.now > before


def round_of_maintenance(world: World, *, began: float) -> None:
    """Report a round of maintenance that found no waiting job and read the schedule when it began."""
    due = None if world.due is None else world.due - began
    world.policy.watched(world.now, (), waiting=False, began=began, due=due)


def test_rounds_of_maintenance_replace_the_fallback_claim(asleep: World) -> None:
    """The rounds read the schedule and find waiting jobs, so an idle worker sends no other statements."""
    since, before = asleep.now, len(asleep.log)
    for _ in range(20):
        asleep.run(5)
        round_of_maintenance(asleep, began=asleep.now)
    assert {type(action) for _, action in asleep.log[before:]} == {Pause}
    asleep.run(31)
    assert len(asleep.looks(since)) == 1  # 30 seconds after the last round


def test_alarm_that_maintenance_reports_is_kept(asleep: World) -> None:
    """A later round moves the alarm to the present due time of the job, but not beyond it."""
    asleep.due = (since := asleep.now) + 7
    round_of_maintenance(asleep, began=asleep.now)
    asleep.run(4)
    round_of_maintenance(asleep, began=asleep.now)
    asleep.run(3.5)
    assert asleep.looks(since) == [7]


def test_round_that_began_before_a_notification_moves_no_alarm(asleep: World) -> None:
    """The round did not see the scheduled job of which the worker was notified in the meantime."""
    asleep.run(1)
    began = asleep.now
    asleep.run(0.1)
    asleep.due = (since := asleep.now) + 2
    asleep.policy.heard(asleep.now)
    asleep.run(0.1)
    asleep.policy.watched(asleep.now, (), waiting=False, began=began, due=None)
    asleep.run(3)
    assert asleep.looks(since)[:2] == [0, 2]


@pytest.mark.parametrize("claim", [(10, 10, ""), (200, 200, "")])
def test_polls_while_claims_come_back_full_and_sleeps_again(asleep: World, claim: tuple[int, int, str]) -> None:
    """It claims every 3 ms while there are jobs, calls for help and a watcher, and sleeps 50 ms after the last job."""
    asleep.claim = claim
    asleep.policy.heard(asleep.now)
    assert asleep.run(0.0005)[:4] == [Look(), Tell("polling"), Call("watch"), Call("help")]
    done = asleep.run(0.3)
    assert sum(action == Call("watch") for _, action in asleep.log) == 1
    assert 50 <= done.count(Look()) <= 110
    asleep.claim = (0, 10, "")
    since = asleep.now
    done = asleep.run(0.2)
    assert [action for action in done if isinstance(action, Tell)] == [Tell("asleep")]
    assert asleep.policy.state == "asleep"
    assert asleep.looks(since)[-1] < 0.06  # one more claim after it registered
    assert asleep.run(3) == [Pause(about(30))]


def test_notifications_that_come_often_make_it_poll(asleep: World) -> None:
    """If single jobs arrive a millisecond apart, each of them would cost a NOTIFY."""
    asleep.claim = (1, 1, "")
    for _ in range(60):
        asleep.policy.heard(asleep.now)
        asleep.run(0.001)
        if asleep.policy.state == "polling":
            return
    pytest.fail("it did not begin to poll")


@pytest.mark.parametrize(("line", "state"), [(0, "asleep"), (2, "polling")])
def test_crowded_line_makes_it_poll(asleep: World, line: int, state: str) -> None:
    """Commits that wait for each other to notify no longer have to. Without such commits, the check is rare."""
    asleep.line = line
    for _ in range(30):
        asleep.policy.heard(asleep.now)
        asleep.run(0.05)
    assert ("polling" in {action.state for _, action in asleep.log if isinstance(action, Tell)}) == (state == "polling")
    assert sum(action == Ask("line") for _, action in asleep.log) <= 17  # in 1.5 seconds


@pytest.mark.parametrize("skipped", ["held", "suspect"])
def test_claims_again_with_growing_pauses_after_passing_over_jobs(asleep: World, skipped: str) -> None:
    """The pause is 50 ms and doubles up to a second. A claim that passes over no job resets it."""
    asleep.claim = (0, 1, skipped)
    for _ in range(2):
        asleep.policy.heard(since := asleep.now)
        asleep.run(6)
        assert asleep.looks(since) == [0, 0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55, 4.55, 5.55]
        asleep.claim = (1, 1, "")
        asleep.run(1)
        since = asleep.now
        asleep.run(20)
        assert not asleep.looks(since)
        asleep.claim = (0, 1, skipped)


def test_relies_on_a_poller_for_a_second_only() -> None:
    """While another worker polls, enqueues rely on that worker, which may be frozen."""
    world = World(pollers=(4,))
    world.run(1)
    world.run(10.5)
    since = world.now - 10
    assert 9 <= len(world.looks(since)) <= 11


@pytest.mark.parametrize("told", ["watched", "busy", "steps"])
def test_poller_that_vanished_makes_it_fall_asleep_again(told: str) -> None:
    """Open enqueues may have relied on that worker. This holds whichever call reports that it is gone."""
    world = World(pollers=(4,))
    world.run(2)
    world.pollers, world.open = (), ("7",)
    match told:
        case "watched":
            world.policy.watched(world.now, (), waiting=False, began=world.now, due=None)
        case "busy":
            world.all(world.policy.loaded(world.now, busy=True, full=False))
        case _:
            world.policy.called()
    world.run(3)
    assert world.policy.open == {"7"}
    world.open = ()
    since = world.now
    world.run(0.1)
    assert world.looks(since)
    world.run(3)
    assert len(world.looks(since)) <= 2  # no worker polls, so there is no claim each second


def test_poller_that_appears_is_relied_on_for_a_second_only(asleep: World) -> None:
    """Maintenance has reported a polling worker."""
    asleep.policy.watched(since := asleep.now, (4,), waiting=False, began=since, due=None)
    asleep.run(3.5)
    assert asleep.looks(since) == [1, 2, 3]


def test_waiting_jobs_that_maintenance_reports_are_claimed_at_once(asleep: World) -> None:
    """The worker that was notified of them may be frozen."""
    asleep.policy.watched(asleep.now, (), waiting=True, began=asleep.now, due=None)
    assert asleep.policy.next(asleep.now) == Look()


@pytest.mark.parametrize("claim", [(0, 1, ""), (200, 200, "")])
def test_without_its_keys_it_claims_every_second(claim: tuple[int, int, str]) -> None:
    """Another session holds the keys. The worker tries once a second, even if its claims return many jobs."""
    world = World(refused=True, claim=claim)
    world.run(10.5)
    assert 9 <= sum(isinstance(action, Tell) for _, action in world.log) <= 12
    assert len(world.looks(0)) >= 10
    world.refused, world.claim = False, (0, 1, "")
    world.run(2)
    assert world.policy.state == "asleep"


def test_scheduled_job_is_an_alarm(asleep: World) -> None:
    """It claims when the job falls due, and not before."""
    asleep.due = asleep.now + 5
    asleep.policy.heard(since := asleep.now)
    asleep.run(4.9)
    assert asleep.looks(since) == [0]
    asleep.run(0.2)
    assert asleep.looks(since)[:2] == [0, 5]


@pytest.mark.parametrize("early", [0.0, 5.0, -1e-9])
def test_job_that_is_due_and_cannot_be_claimed_does_not_spin(asleep: World, early: float) -> None:
    """Another transaction has locked its place, or the job is in another queue."""
    asleep.due = asleep.now - early
    asleep.policy.heard(since := asleep.now)
    asleep.run(10)
    assert 9 <= len(asleep.looks(since)) <= 12


def test_jobs_of_other_queues_that_fall_due_all_the_time_do_not_spin(asleep: World) -> None:
    """This worker does not serve them, but next_due() does not know that."""
    asleep.policy.heard(since := asleep.now)
    for _ in range(1000):
        asleep.due = asleep.now + 0.0001
        asleep.run(0.001)
    assert len(asleep.looks(since)) <= 340


def test_disconnected_worker_falls_asleep_in_steps(asleep: World) -> None:
    """It has lost its keys, so it claims, registers and claims again."""
    asleep.policy.disconnected()
    done = [action for action in asleep.run(0.1) if not isinstance(action, Ask | Pause)]
    assert done == [Look(), Tell("asleep"), Look()]


@pytest.mark.parametrize(("state", "expected"), [
    ("asleep", [Tell("awake"), Call("help")]), ("polling", [Tell("awake")]), ("awake", [Call("help")]),
])  # fmt: skip
def test_worker_without_room_registers_as_awake(asleep: World, state: str, expected: list[Action]) -> None:
    """It calls for help, unless it was polling: then set_worker_state calls the sleeping workers itself."""
    if state != "asleep":
        asleep.do(Tell(state))  # type: ignore[arg-type]  # a parameter is not a literal
    assert asleep.policy.loaded(asleep.now, busy=True, full=True) == expected


SKIPPED = st.sampled_from(["", "held", "suspect"])
WORLDS = st.fixed_dictionaries({
    "claim": st.one_of(st.tuples(st.just(0), st.just(1), SKIPPED), st.tuples(st.integers(1, 20), st.just(20), SKIPPED)),
    "open": st.sets(st.sampled_from("abc")).map(tuple), "pollers": st.sets(st.integers(1, 3)).map(tuple),
    "due_in": st.sampled_from([None, -3.0, 0.0, 1e-6, 0.01, 7.0]), "line": st.integers(0, 1),
    "on_watch": st.booleans(), "new": st.booleans(), "refused": st.booleans(),
})  # fmt: skip
EVENTS = st.lists(
    st.sampled_from(["heard", "called", "watched", "waiting", "lost", "busy", "idle", "full"]), max_size=4
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(WORLDS, EVENTS, st.sampled_from([0.0, 0.001, 0.06, 1.5, 4.0])), min_size=1, max_size=6))
def test_nothing_is_missed_and_nothing_spins(rounds: list[tuple[dict[str, object], list[str], float]]) -> None:
    """In any case, a due claim comes before a pause, no pause is too long, and the number of actions is bounded."""
    world = World(policy=SleepPolicy(3.0))
    for answers, events, seconds in rounds:
        due_in = answers.pop("due_in")
        vars(world).update(answers, due=None if due_in is None else world.now + due_in)  # type: ignore[operator]
        for event in events:
            match event:
                case "heard":
                    world.policy.heard(world.now)
                case "called":
                    world.policy.called()
                case "watched" | "waiting":
                    waiting, due = event == "waiting", None if world.due is None else world.due - world.now
                    world.policy.watched(world.now, world.pollers, waiting=waiting, began=world.now, due=due)
                case "lost":
                    world.policy.disconnected()
                case _:
                    world.all(world.policy.loaded(world.now, busy=event != "idle", full=event == "full"))
        owed = bool({"heard", "waiting", "lost"} & set(events))
        first = len(world.log)
        done = world.run(seconds)
        assert not owed or next(action for action in done if isinstance(action, Look | Pause)) == Look()
        assert len(world.log) - first <= 20 + 1000 * seconds
        assert all(action.seconds < 3 + 1e-6 for action in done if isinstance(action, Pause))
        looks = [at for at, action in world.log[first:] if isinstance(action, Look)]
        relies = world.pollers and {"watched", "waiting"} & set(events)
        most = 1.06 if world.claim[2] or relies or world.policy.state != "asleep" else 4.1
        # The former answers of the world may have delayed the first claim.
        assert all(later - sooner <= most for sooner, later in pairwise([*looks, world.now]))
