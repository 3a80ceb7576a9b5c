"""Work in a session: tasks that wake it and let it rest, conversations, touches."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from managing import START, House, Recorder, minutes, seconds, triggers, work_left

from session_fsm import (
    GuardRejectedError,
    InvalidTransitionError,
    SessionManager,
    SessionNotFoundError,
    StateInvalidError,
)
from session_fsm.clock import ManualClock
from session_fsm.stores.records import Commit, Work

pytest_plugins = ("manager_fixtures",)

# --- begin and end ---------------------------------------------------------------------------


def test_manager_tasks_begin_and_end(manager: SessionManager, clock: ManualClock) -> None:
    """Tasks are listed in the order in which they began; with the last one the session rests."""
    manager.create("a")
    clock.advance(5)
    manager.begin_task("a", "x")
    session = manager.begin_task("a", "y")
    assert (session.status, session.state.active_tasks) == ("active", ("x", "y"))
    assert session.state.last_activity_at == START + seconds(5)
    clock.advance(5)
    session = manager.end_task("a", "x", reason="done")
    assert (session.status, session.state.active_tasks) == ("active", ("y",))
    assert manager.history("a")[-1].reason == "done"
    session = manager.end_task("a", "y")
    assert (session.status, session.state.active_tasks) == ("idle", ())
    assert session.state.last_activity_at == session.state.status_since == START + seconds(10)


def test_manager_tasks_wake_in_the_same_commit(house: House) -> None:
    """A task begun on an idle session wakes it: two steps, one commit, never seen half-way."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")
    manager.transition("a", "idle")
    commits: list[Commit] = []
    store.after["commit"] = commits.append
    session = manager.begin_task("a", "t")
    assert (session.status, session.revision) == ("active", 5)
    [commit] = commits
    assert [step.sealed.event.trigger for step in commit.steps] == ["resume", "begin_task"]
    assert commit.claims == (Work("task", "t"),)


def test_manager_tasks_rest_in_the_same_commit(house: House) -> None:
    """With `auto_idle`, the end of the last task and the rest are one commit."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")
    manager.begin_task("a", "t")
    commits: list[Commit] = []
    store.after["commit"] = commits.append
    assert manager.end_task("a", "t").status == "idle"
    [commit] = commits
    assert [step.sealed.event.trigger for step in commit.steps] == ["end_task", "go_idle"]


def test_manager_tasks_without_auto_idle(house: House) -> None:
    """Without `auto_idle` a session stays active until it is told to rest."""
    manager = house.open(auto_idle=False)
    manager.create("a")
    manager.begin_task("a", "t")
    session = manager.end_task("a", "t")
    assert (session.status, session.state.active_tasks) == ("active", ())
    assert manager.transition("a", "idle").status == "idle"
    assert manager.begin_task("a", "t").status == "active"


def test_manager_tasks_fired_by_name_rest_too(manager: SessionManager) -> None:
    """What follows from the end of a task follows however it was fired."""
    manager.create("a")
    manager.begin_task("a", "t")
    assert manager.fire("a", "end_task", task_id="t").status == "idle"


@pytest.mark.parametrize("auto_idle", [True, False])
def test_manager_tasks_last_one_ends_the_session(house: House, auto_idle: bool) -> None:
    """The end of the last task of a session that is being ended finishes it in the same commit."""
    store = house.store()
    manager = house.open(store=store, auto_idle=auto_idle)
    manager.create("a")
    manager.begin_task("a", "x")
    manager.begin_task("a", "y")
    assert manager.terminate("a", wait=False).status == "terminating"
    assert manager.end_task("a", "y").status == "terminating"
    commits: list[Commit] = []
    store.after["commit"] = commits.append
    session = manager.end_task("a", "x")
    assert session.status == "terminated"
    assert session.state.error is None
    [commit] = commits
    assert [step.sealed.event.trigger for step in commit.steps] == ["end_task", "finish"]
    assert work_left(manager, "a") == set()


def test_manager_tasks_begun_twice(house: House, manager: SessionManager) -> None:
    """A task that is active is refused, also by another manager; ended, its id is free again."""
    manager.create("a")
    manager.begin_task("a", "t")
    before = manager.get("a")
    for each in (manager, house.open()):
        with pytest.raises(GuardRejectedError) as caught:
            each.begin_task("a", "t")
        assert caught.value.refusal.failed_guards[0].name == "not already active"
    assert manager.get("a") == before
    manager.end_task("a", "t")
    assert manager.begin_task("a", "t").state.active_tasks == ("t",)


def test_manager_tasks_ended_twice(manager: SessionManager) -> None:
    """A task that is not active can't be ended, and the refusal wakes nothing."""
    manager.create("a")
    manager.begin_task("a", "t")
    idle = manager.end_task("a", "t")
    with pytest.raises(InvalidTransitionError):
        manager.end_task("a", "t")
    assert manager.get("a") == idle
    manager.begin_task("a", "u")
    with pytest.raises(GuardRejectedError):
        manager.end_task("a", "t")


@pytest.mark.parametrize("task_id", ["", " ", "x" * 256, "a\nb", 5, None])
def test_manager_tasks_bad_ids(manager: SessionManager, task_id: str) -> None:
    """A task needs an id as a session does; a bad one does not even wake the session."""
    manager.create("a")
    idle = manager.transition("a", "idle")
    with pytest.raises(StateInvalidError):
        manager.begin_task("a", task_id)
    assert manager.get("a") == idle
    assert work_left(manager, "a") == set()


def test_manager_tasks_not_in_an_ending_session(manager: SessionManager) -> None:
    """A session that is being ended, or has ended, takes no new work."""
    manager.create("a")
    manager.begin_task("a", "t")
    manager.terminate("a", wait=False)
    with pytest.raises(InvalidTransitionError):
        manager.begin_task("a", "u")
    manager.end_task("a", "t")
    with pytest.raises(InvalidTransitionError):
        manager.begin_task("a", "u")


def test_manager_tasks_are_claimed(house: House, manager: SessionManager) -> None:
    """The store knows each task as long as it is active, whoever ends it."""
    other = house.open()
    manager.create("a")
    manager.begin_task("a", "x")
    other.begin_task("a", "y")
    assert work_left(manager, "a") == {Work("task", "x"), Work("task", "y")}
    other.end_task("a", "x")
    assert work_left(manager, "a") == {Work("task", "y")}
    manager.fail("a", "boom")
    assert work_left(manager, "a") == set()


# --- expiry ----------------------------------------------------------------------------------


def test_manager_tasks_stop_the_idle_clock(manager: SessionManager, clock: ManualClock) -> None:
    """A session at work does not expire, however long it works; its clock starts at the end."""
    manager.create("a")
    manager.begin_task("a", "t")
    assert manager.next_deadline() is None
    clock.advance(minutes(300))
    assert manager.sweep().fired == ()
    manager.begin_task("a", "u")
    manager.start_conversation("a")
    manager.touch("a")
    manager.end_task("a", "u")
    clock.advance(minutes(300))
    assert manager.end_task("a", "t").status == "idle"
    assert manager.next_deadline() == START + minutes(630)


@pytest.mark.parametrize(
    "verb",
    [
        lambda manager: manager.begin_task("a", "t"),
        lambda manager: manager.touch("a"),
        lambda manager: manager.transition("a", "active"),
        lambda manager: manager.fire("a", "resume"),
    ],
)
@pytest.mark.parametrize("late", [0.0, 1e-6, 10_000.0])
def test_manager_tasks_nothing_revives_the_expired(
    manager: SessionManager,
    clock: ManualClock,
    verb: Callable[[SessionManager], object],
    late: float,
) -> None:
    """At its deadline and after it an idle session is refused everything, though nobody swept."""
    manager.create("a")
    idle = manager.transition("a", "idle")
    clock.advance(minutes(30) + seconds(late))
    with pytest.raises(GuardRejectedError) as caught:
        verb(manager)
    assert caught.value.refusal.failed_guards[0].name == "not expired"
    assert caught.value.refusal.next_timed == ("expire", START + minutes(30))
    assert manager.get("a") == idle
    assert [event.trigger for event in manager.sweep().fired] == ["expire", "finish"]


@pytest.mark.parametrize(
    "verb",
    [
        lambda manager: manager.begin_task("a", "t"),
        lambda manager: manager.touch("a"),
        lambda manager: manager.start_conversation("a"),
    ],
)
def test_manager_tasks_nothing_revives_the_expired_active(
    house: House, verb: Callable[[SessionManager], object]
) -> None:
    """An active session without tasks expires as an idle one does; a moment before, it lives on."""
    manager = house.open(auto_idle=False)
    manager.create("a")
    house.clock.advance(minutes(30) - seconds(1e-6))
    verb(manager)
    for task in manager.get("a").state.active_tasks:
        manager.end_task("a", task)
    active = manager.get("a")
    assert active.status == "active"
    house.clock.advance(minutes(30))
    with pytest.raises(GuardRejectedError) as caught:
        verb(manager)
    assert caught.value.refusal.failed_guards[-1].name == "not expired"
    assert manager.get("a") == active


# --- the context manager ---------------------------------------------------------------------


def test_manager_tasks_for_a_block(manager: SessionManager) -> None:
    """The task is active within the block and ended after it."""
    manager.create("a")
    with manager.task("a", "t") as session:
        assert session.state.active_tasks == ("t",)
        assert manager.get("a") == session
    assert manager.get("a").status == "idle"
    assert manager.history("a")[-2].reason is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ValueError("bad"), "failed: ValueError: bad"),
        (KeyboardInterrupt(), "failed: KeyboardInterrupt"),
        (SystemExit(3), "failed: SystemExit: 3"),
        (StopIteration("x"), "failed: StopIteration: x"),
        (RuntimeError("x" * 200_000), "failed: RuntimeError: xxx"),
        (RuntimeError("nul \x00 \ud800"), "failed: RuntimeError: nul \\x00 \\ud800"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_manager_tasks_block_that_raises(
    manager: SessionManager, fault: BaseException, reason: str
) -> None:
    """Whatever leaves the block is raised again as it is, and kept as the reason of the end."""
    manager.create("a")
    with pytest.raises(type(fault)) as caught, manager.task("a", "t"):
        raise fault
    assert caught.value is fault
    assert manager.get("a").status == "idle"
    kept = manager.history("a")[-2]
    assert kept.trigger == "end_task"
    assert kept.reason is not None
    assert kept.reason.startswith(reason)


def test_manager_tasks_block_whose_error_has_no_words(manager: SessionManager) -> None:
    """An exception that can't be printed ends the task like any other."""

    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    manager.create("a")
    with pytest.raises(SpeechlessError), manager.task("a", "t"):
        raise SpeechlessError
    assert manager.get("a").status == "idle"
    assert manager.history("a")[-2].reason == "failed: SpeechlessError"


def test_manager_tasks_block_raises_before_its_own_trouble(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """If the task can't be ended, that is logged; the caller gets the exception of the block."""
    manager.create("a")
    with (
        caplog.at_level(logging.ERROR, "session_fsm"),
        pytest.raises(ZeroDivisionError),
        manager.task("a", "t"),
    ):
        manager.fail("a", "boom")
        raise ZeroDivisionError
    assert "'t'" in caplog.text
    assert manager.get("a").status == "terminated"


def test_manager_tasks_block_that_ends_well_tells_its_trouble(manager: SessionManager) -> None:
    """If nothing else went wrong, a task that can't be ended is the caller's to hear of."""
    manager.create("a")
    with pytest.raises(InvalidTransitionError), manager.task("a", "t"):
        manager.fail("a", "boom")


def test_manager_tasks_block_that_is_not_entered(manager: SessionManager) -> None:
    """A task that can't begin runs no block and ends nobody else's task."""
    manager.create("a")
    manager.begin_task("a", "t")
    ran = False
    with pytest.raises(GuardRejectedError), manager.task("a", "t"):
        ran = True
    with pytest.raises(SessionNotFoundError), manager.task("b", "t"):
        ran = True
    assert not ran
    assert manager.get("a").state.active_tasks == ("t",)


def test_manager_tasks_blocks_within_each_other(manager: SessionManager) -> None:
    """Several blocks hold several tasks; the session rests after the outermost."""
    manager.create("a")
    with manager.task("a", "x"):
        with manager.task("a", "y") as session:
            assert session.state.active_tasks == ("x", "y")
        assert manager.get("a").status == "active"
    assert manager.get("a").status == "idle"


# --- conversations and touches ---------------------------------------------------------------


def test_manager_tasks_conversations_up_to_the_limit(manager: SessionManager) -> None:
    """As many conversations as are allowed, and not one more; a higher limit allows more."""
    manager.create("a", config={"max_conversations": 2})
    assert manager.start_conversation("a").state.conversation_count == 1
    assert manager.start_conversation("a").state.conversation_count == 2
    before = manager.get("a")
    with pytest.raises(GuardRejectedError) as caught:
        manager.start_conversation("a")
    assert caught.value.refusal.failed_guards[0].name == "below max_conversations"
    assert manager.get("a") == before
    manager.update("a", config={"max_conversations": 3})
    assert manager.start_conversation("a").state.conversation_count == 3


def test_manager_tasks_conversations_need_an_active_session(manager: SessionManager) -> None:
    """A conversation wakes nobody."""
    manager.create("a")
    manager.transition("a", "idle")
    with pytest.raises(InvalidTransitionError):
        manager.start_conversation("a")


def test_manager_tasks_touch_moves_the_deadline(
    manager: SessionManager, clock: ManualClock
) -> None:
    """A touch counts as activity, in an active and in an idle session."""
    manager.create("a")
    clock.advance(minutes(20))
    assert manager.touch("a").status == "active"
    assert manager.next_deadline() == START + minutes(50)
    manager.transition("a", "idle")
    clock.advance(minutes(20))
    assert manager.touch("a").status == "idle"
    assert manager.next_deadline() == START + minutes(70)


def test_manager_tasks_touch_resolution(house: House) -> None:
    """A touch that is nearer to the last activity than the resolution writes nothing."""
    manager = house.open(touch_resolution_seconds=10.0)
    before = manager.create("a")
    recorder = Recorder()
    manager.subscribe(recorder)
    for _ in range(9):
        house.clock.advance(1)
        assert manager.touch("a") == before
    house.clock.advance(seconds(1 - 1e-6))
    assert manager.touch("a") == before
    house.clock.advance(seconds(1e-6))
    assert manager.touch("a").state.last_activity_at == START + seconds(10)
    house.clock.advance(9)
    assert manager.touch("a").revision == 3
    assert recorder.told == [("a", 3)]


def test_manager_tasks_touch_resolution_refuses_all_the_same(house: House) -> None:
    """However near the last activity: what has ended or expired can't be touched."""
    manager = house.open(touch_resolution_seconds=3600.0)
    manager.create("a", config={"timeout_minutes": 1})
    house.clock.advance(60)
    with pytest.raises(GuardRejectedError):
        manager.touch("a")
    manager.terminate("a")
    with pytest.raises(InvalidTransitionError):
        manager.touch("a")


def test_manager_tasks_touch_without_resolution(manager: SessionManager) -> None:
    """Without a resolution every touch is written, also two at one instant."""
    manager.create("a")
    manager.touch("a")
    manager.touch("a")
    assert triggers(manager, "a")[2:] == ["touch", "touch"]
