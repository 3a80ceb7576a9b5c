"""How sessions end: terminate, which drains, and fail, which does not."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from managing import (
    START,
    House,
    Recorder,
    await_event,
    begin,
    end,
    once,
    seconds,
    triggers,
    work_left,
)

from session_fsm import Session, SessionEvent, SessionManager
from session_fsm.clock import Clock, ManualClock
from session_fsm.stores.records import Commit

pytest_plugins = ("manager_fixtures",)


class WatchedClock:
    """A clock of the tests that says when somebody begins to wait by it."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.waiting = threading.Event()
        self.timeouts: list[float] = []
        self.now = clock.now

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Note the wait, and wait."""
        self.timeouts.append(timeout_seconds)
        self.waiting.set()
        return self._clock.wait(event, timeout_seconds)


# --- terminate -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["active", "idle"])
def test_manager_ending_with_nothing_to_wait_for(house: House, status: str) -> None:
    """A session without tasks and worker ends in one commit, through terminating."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")
    if status == "idle":
        manager.transition("a", "idle")
    commits: list[Commit] = []
    store.after["commit"] = commits.append
    session = manager.terminate("a", reason="enough")
    assert (session.status, session.state.error) == ("terminated", None)
    [commit] = commits
    assert [step.sealed.event.trigger for step in commit.steps] == ["terminate", "finish"]
    assert manager.history("a")[-2].reason == "enough"
    assert manager.next_deadline() is None


def test_manager_ending_of_the_ended(manager: SessionManager, clock: ManualClock) -> None:
    """A session that has ended is returned unchanged, by terminate and by fail."""
    manager.create("a")
    ended = manager.terminate("a")
    clock.advance(5)
    recorder = Recorder()
    manager.subscribe(recorder)
    assert manager.terminate("a", reason="again") == ended
    assert manager.terminate("a", wait=False) == ended
    assert manager.fail("a", "boom") == ended
    assert manager.get("a") == ended
    assert recorder.events == []


def test_manager_ending_without_waiting(manager: SessionManager) -> None:
    """Told not to wait, it returns while the tasks drain; the last one ends the session."""
    manager.create("a")
    manager.begin_task("a", "t")
    session = manager.terminate("a", wait=False)
    assert (session.status, session.state.active_tasks) == ("terminating", ("t",))
    assert manager.next_deadline() == START + seconds(10)
    assert manager.terminate("a", wait=False).revision == session.revision
    assert manager.end_task("a", "t").status == "terminated"


def test_manager_ending_waits_for_tasks(house: House) -> None:
    """It waits, without the session's lock, until the last task was ended by somebody else."""
    clock = WatchedClock(house.clock)
    manager = house.open(clock=clock)
    manager.create("a")
    manager.begin_task("a", "x")
    manager.begin_task("a", "y")
    ending = begin(manager.terminate, "a")
    await_event(clock.waiting)
    assert manager.get("a").status == "terminating"
    manager.update("a", metadata={"still": "here"})
    manager.end_task("a", "x")
    assert not ending.done()
    assert manager.end_task("a", "y").status == "terminated"
    [session] = end(ending)
    assert (session.status, session.state.error) == ("terminated", None)
    assert session == manager.get("a")
    assert all(timeout <= 10 for timeout in clock.timeouts)


def test_manager_ending_waits_for_another_manager(house: House) -> None:
    """Tasks that another manager ends are waited for just the same."""
    clock = WatchedClock(house.clock)
    manager, other = house.open(clock=clock), house.open()
    manager.create("a")
    other.begin_task("a", "t")
    ending = begin(manager.terminate, "a")
    await_event(clock.waiting)
    other.end_task("a", "t")
    # What another process does is looked for from time to time, by the clock.
    while not ending.done():
        house.clock.advance(0.05)
    [session] = end(ending)
    assert (session.status, session.state.error) == ("terminated", None)


def test_manager_ending_gives_up_at_the_deadline(house: House) -> None:
    """At its deadline it drops the tasks that are left and names them."""
    clock = WatchedClock(house.clock)
    manager = house.open(clock=clock)
    manager.create("a")
    for task in ("x", "y", "z"):
        manager.begin_task("a", task)
    ending = begin(manager.terminate, "a")
    await_event(clock.waiting)
    manager.end_task("a", "y")
    house.clock.advance(seconds(10 - 1e-6))
    assert manager.get("a").status == "terminating"
    house.clock.advance(seconds(1e-6))
    [session] = end(ending)
    assert session.status == "terminated"
    assert session.state.active_tasks == ()
    assert session.state.error == "the stop did not end within 10 s; 2 tasks dropped: x, z"
    assert triggers(manager, "a")[-1] == "stop_timeout"
    assert session.state.status_since == START + seconds(10)
    assert work_left(manager, "a") == set()


def test_manager_ending_by_its_own_grace(house: House) -> None:
    """The grace is the manager's to choose; zero waits for nobody."""
    manager = house.open(stop_grace_seconds=0.0)
    manager.create("a")
    manager.begin_task("a", "t")
    session = manager.terminate("a")
    assert session.state.error == "the stop did not end within 0 s; 1 task dropped: t"
    slow = house.open(stop_grace_seconds=3600.0)
    slow.create("b")
    slow.begin_task("b", "t")
    slow.terminate("b", wait=False)
    assert slow.next_deadline() == START + seconds(3600)


def test_manager_ending_by_two_at_once(house: House) -> None:
    """Two that end a session wait for the same tasks and get the same answer."""
    clocks = [WatchedClock(house.clock), WatchedClock(house.clock)]
    manager = house.open(clock=clocks[0])
    other = house.open(clock=clocks[1])
    manager.create("a")
    manager.begin_task("a", "t")
    ending = begin(manager.terminate, "a"), begin(other.terminate, "a", reason="me too")
    for clock in clocks:
        await_event(clock.waiting)
    house.clock.advance(10)
    first, second = end(*ending)
    assert first == second == manager.get("a")
    assert triggers(manager, "a")[2:] == ["begin_task", "terminate", "stop_timeout"]


def test_manager_ending_joins_what_is_under_way(house: House) -> None:
    """Who ends a session that is being ended waits until its first deadline, not a new one."""
    manager = house.open()
    manager.create("a")
    manager.begin_task("a", "t")
    manager.terminate("a", wait=False)
    house.clock.advance(7)
    clock = WatchedClock(house.clock)
    other = house.open(clock=clock)
    ending = begin(other.terminate, "a")
    await_event(clock.waiting)
    house.clock.advance(3)
    [session] = end(ending)
    assert session.state.status_since == START + seconds(10)


def test_manager_ending_swept_while_it_waits(house: House) -> None:
    """A sweep at the deadline ends it for whoever waits."""
    clock = WatchedClock(house.clock)
    manager, other = house.open(clock=clock), house.open()
    manager.create("a")
    manager.begin_task("a", "t")
    ending = begin(manager.terminate, "a")
    await_event(clock.waiting)
    house.clock.advance(10)
    other.sweep()
    [session] = end(ending)
    assert session == other.get("a")
    assert triggers(manager, "a").count("stop_timeout") == 1


def test_manager_ending_of_an_expired_session(manager: SessionManager, clock: ManualClock) -> None:
    """What has expired can be ended by hand, as long as nobody swept."""
    manager.create("a")
    manager.transition("a", "idle")
    clock.advance(3600)
    assert manager.terminate("a").status == "terminated"
    assert triggers(manager, "a")[-2:] == ["terminate", "finish"]


def test_manager_ending_during_the_start(manager: SessionManager) -> None:
    """A session that is still starting is aborted, with the reason in its error."""
    ended: list[Session] = []

    def start(session: Session) -> None:
        ended.append(manager.terminate(session.session_id, reason="not needed"))

    for session_id in ("a",):
        with pytest.raises(Exception, match="did not start"):
            manager.create(session_id, start=start)
    [session] = ended
    assert (session.status, session.state.error) == ("terminated", "not needed")
    assert triggers(manager, "a") == [None, "abort"]
    assert manager.history("a")[-1].reason == "not needed"


def test_manager_ending_never_detours_through_idle(house: House) -> None:
    """Terminating is committed before the last task can put the session to rest."""
    store = house.store()
    manager, other = house.open(store=store), house.open()
    manager.create("a")
    other.begin_task("a", "t")
    store.before["commit"] = once(lambda _: other.end_task("a", "t"))
    manager.terminate("a")
    recorded = [event.target for event in manager.history("a")]
    # The task ended first, so the session was at rest, and was ended from there.
    assert recorded[-4:] == ["active", "idle", "terminating", "terminated"]
    manager.create("b")
    other.begin_task("b", "t")
    manager.terminate("b", wait=False)
    other.end_task("b", "t")
    assert "idle" not in [event.target for event in manager.history("b")]


def test_manager_ending_leaves_no_watcher(manager: SessionManager) -> None:
    """However it ends, nobody stays subscribed."""
    manager.create("a")
    manager.terminate("a")
    with pytest.raises(Exception, match="there is no session"):
        manager.terminate("b")
    assert not manager._core._subscribers.any


def test_manager_ending_in_a_callback(manager: SessionManager) -> None:
    """A session may be ended by a callback that is told of another session."""
    manager.create("a")
    manager.create("b")

    def react(event: SessionEvent) -> None:
        if event.session_id == "a" and event.target == "terminated":
            manager.terminate("b")

    manager.subscribe(react)
    manager.terminate("a")
    assert manager.get("b").status == "terminated"


# --- fail ------------------------------------------------------------------------------------

Prepare = Callable[[SessionManager], object]


def _terminating(manager: SessionManager) -> None:
    manager.create("a")
    manager.begin_task("a", "x")
    manager.terminate("a", wait=False)


def _with_tasks(manager: SessionManager) -> None:
    manager.create("a")
    manager.begin_task("a", "x")
    manager.begin_task("a", "y")


def _idle(manager: SessionManager) -> None:
    manager.create("a")
    manager.transition("a", "idle")


@pytest.mark.parametrize(
    ("prepare", "error", "fired"),
    [
        (lambda manager: manager.create("a"), "boom", ["terminate", "finish"]),
        (_idle, "boom", ["terminate", "finish"]),
        (
            _with_tasks,
            "boom; 2 tasks dropped: x, y",
            ["terminate", "end_task", "end_task", "finish"],
        ),
        (_terminating, "boom; 1 task dropped: x", ["end_task", "finish"]),
    ],
    ids=["active", "idle", "tasks", "terminating"],
)
def test_manager_ending_by_failure(
    house: House, prepare: Prepare, error: str, fired: list[str]
) -> None:
    """One commit, by the legal way out; tasks are dropped and named, the cause is kept."""
    store = house.store()
    manager = house.open(store=store)
    prepare(manager)
    commits: list[Commit] = []
    store.after["commit"] = commits.append
    session = manager.fail("a", "boom")
    assert (session.status, session.state.error) == ("terminated", error)
    assert session.state.active_tasks == ()
    [commit] = commits
    assert [step.sealed.event.trigger for step in commit.steps] == fired
    assert all(event.reason for event in manager.history("a")[-len(fired) :])
    assert work_left(manager, "a") == set()
    assert manager.verify().ok


def test_manager_ending_by_failure_during_the_start(manager: SessionManager) -> None:
    """A session that fails while it starts is aborted."""

    def start(session: Session) -> None:
        manager.fail(session.session_id, "no image")

    with pytest.raises(Exception, match="did not start"):
        manager.create("a", start=start)
    assert manager.get("a").state.error == "no image"
    assert triggers(manager, "a") == [None, "abort"]


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (KeyError(), "KeyError"),
        ("in words", "in words"),
        ("nul \x00 and \udcff", "nul \\x00 and \\udcff"),
    ],
)
def test_manager_ending_keeps_any_cause(
    manager: SessionManager, cause: str | BaseException, error: str
) -> None:
    """A failure does not fail over what its cause is made of."""
    manager.create("a")
    assert manager.fail("a", cause).state.error == error


def test_manager_ending_keeps_a_long_cause(manager: SessionManager) -> None:
    """A cause that is too long is cut; the names of the dropped tasks are kept."""
    manager.create("a")
    manager.begin_task("a", "task-1")
    error = manager.fail("a", "x" * 1_000_000).state.error
    assert error is not None
    assert error.startswith("xxxx")
    assert error.endswith("1 task dropped: task-1")
    assert len(error) <= 65_536


def test_manager_ending_keeps_earlier_errors(manager: SessionManager) -> None:
    """What was known to be wrong before stays in the error, before the cause."""
    manager.create("a")
    manager.update("a", error="slow disk")
    assert manager.fail("a", "boom").state.error == "slow disk; boom"


def test_manager_ending_fails_what_others_wait_for(house: House) -> None:
    """Who waits for a session to end in good order gets it as it failed."""
    clock = WatchedClock(house.clock)
    manager = house.open(clock=clock)
    manager.create("a")
    manager.begin_task("a", "t")
    ending = begin(manager.terminate, "a")
    await_event(clock.waiting)
    failed = manager.fail("a", "boom")
    [session] = end(ending)
    assert session == failed


def test_manager_ending_clock_is_a_clock(house: House) -> None:
    """The clock of these tests is one that a manager takes."""
    clock: Clock = WatchedClock(house.clock)
    assert clock.now() == START
