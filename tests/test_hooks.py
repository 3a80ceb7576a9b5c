"""Hooks by status: who enters, who leaves, and what a hook that fails does to others."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import CancelledError

import pytest
from managing import House, Recorder

from session_fsm import (
    SESSION_LIFECYCLE,
    LifecycleError,
    SessionEvent,
    SessionManager,
    SessionStatus,
)
from session_fsm.clock import ManualClock

pytest_plugins = ("manager_fixtures",)


def test_hooks_are_called_by_status(manager: SessionManager) -> None:
    """Each is told of the moves into its status, or out of it, and of no other event."""
    entered, left, begun = Recorder(), Recorder(), Recorder()
    manager.on_enter("active", entered)
    manager.on_leave(SessionStatus.ACTIVE, left)
    manager.on_enter("initializing", begun)
    manager.create("a")
    manager.touch("a")
    manager.fire("a", "go_idle")
    manager.update("a", metadata={"x": 1})
    manager.begin_task("a", "t")
    assert entered.told == [("a", 2), ("a", 6)]
    assert left.told == [("a", 4)]
    assert [event.kind for event in begun.events] == ["created"]


def test_hooks_run_after_the_commit(house: House) -> None:
    """What a hook sees is stored; in a batch it is called when that is durable."""
    manager, other = house.open(), house.open()
    seen: list[tuple[str, int]] = []

    def look(event: SessionEvent) -> None:
        session = other.get(event.session_id)
        seen.append((session.status, session.revision))

    manager.create("a")
    manager.on_leave("active", look)
    manager.fire("a", "go_idle")
    assert seen == [("idle", 3)]
    with manager.batch():
        manager.fire("a", "resume")
        manager.fire("a", "go_idle")
        assert len(seen) == 1
    assert seen[1:] == [("idle", 5)]


@pytest.mark.parametrize(
    "fault", [RuntimeError, SystemExit, GeneratorExit, asyncio.CancelledError, CancelledError]
)
def test_hooks_that_fail_harm_nobody(
    manager: SessionManager, caplog: pytest.LogCaptureFixture, fault: type[BaseException]
) -> None:
    """A failure is logged; the verb is answered, and the other hooks are called."""

    def fail(event: SessionEvent) -> None:
        raise fault(f"no luck with {event.session_id}")

    entered = Recorder()
    manager.on_enter("idle", fail)
    manager.on_enter("idle", entered)
    manager.create("a")
    with caplog.at_level(logging.ERROR):
        assert manager.fire("a", "go_idle").status == "idle"
    assert entered.told == [("a", 3)]
    [record] = caplog.records
    assert "revision 3 of session 'a'" in record.getMessage()
    assert "no luck with a" in caplog.text


def test_hooks_end(manager: SessionManager) -> None:
    """Once ended a hook is not called any longer; twice is harmless."""
    entered = Recorder()
    end = manager.on_enter("active", entered)
    manager.create("a")
    end()
    end()
    manager.create("b")
    assert entered.told == [("a", 2)]


def test_hooks_of_what_is_purged(manager: SessionManager, clock: ManualClock) -> None:
    """A purge is no move: no status is left or entered by it."""
    recorder = Recorder()
    manager.create("a")
    manager.terminate("a")
    manager.on_enter("terminated", recorder)
    manager.on_leave("terminated", recorder)
    clock.advance(1)
    assert manager.purge(ended_before=clock.now()) == 1
    assert recorder.events == []


def test_hooks_of_a_status_that_is_not_there(house: House) -> None:
    """A word that the lifecycle does not know is refused, and so is what can't be called."""
    lifecycle = SESSION_LIFECYCLE.without("touch", name="other")
    with SessionManager(lifecycle=lifecycle) as manager:
        for verb in (manager.on_enter, manager.on_leave):
            with pytest.raises(LifecycleError, match="no status 'asleep'"):
                verb("asleep", print)
            with pytest.raises(TypeError, match="a hook is called"):
                verb("idle", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert not manager._core._subscribers.any


def test_hooks_may_be_interrupted(manager: SessionManager) -> None:
    """An interrupt of the user is nobody's own trouble, and gets through; the move is made."""

    def interrupt(_: SessionEvent) -> None:
        raise KeyboardInterrupt

    manager.on_enter("idle", interrupt)
    manager.create("a")
    with pytest.raises(KeyboardInterrupt):
        manager.fire("a", "go_idle")
    assert manager.get("a").status == "idle"
