"""Looking at sessions: get, find, list, counts, explain, permitted, history; nothing moves."""

from __future__ import annotations

from typing import Any

import pytest
from managing import START, House, Recorder, minutes, triggers

from session_fsm import (
    LifecycleError,
    SessionManager,
    SessionNotFoundError,
    SessionStatus,
)
from session_fsm.clock import ManualClock

pytest_plugins = ("manager_fixtures",)


def test_manager_reading_get_and_find(manager: SessionManager) -> None:
    """`get` raises where `find` says None, also for ids that no session could have."""
    created = manager.create("a")
    assert manager.get("a") == manager.find("a") == created
    for absent in ("b", "", "A", "a "):
        assert manager.find(absent) is None
        with pytest.raises(SessionNotFoundError) as caught:
            manager.get(absent)
        assert caught.value.session_id == absent


def test_manager_reading_sees_what_others_wrote(house: House, manager: SessionManager) -> None:
    """What another manager has committed is read at once."""
    other = house.open()
    manager.create("a")
    other.update("a", metadata={"n": 1})
    assert manager.get("a") == other.get("a")
    assert manager.get("a").state.metadata == {"n": 1}
    manager.transition("a", "idle")
    assert other.get("a").status == "idle"


def test_manager_reading_moves_no_clock(manager: SessionManager, clock: ManualClock) -> None:
    """However often a session is looked at, it expires at its time."""
    manager.create("a", config={"timeout_minutes": 10})
    before = manager.get("a")
    for _ in range(9):
        clock.advance(minutes(1))
        assert manager.get("a") == manager.find("a") == before
        assert manager.list().sessions == (before,)
        manager.explain("a", "touch")
        manager.permitted("a")
        manager.history("a")
        manager.counts()
        manager.next_deadline()
        manager.verify()
    assert manager.next_deadline() == START + minutes(10)
    clock.advance(minutes(1))
    assert manager.sweep().fired[0].trigger == "expire"


def fill(manager: SessionManager) -> None:
    """Create sessions in several statuses."""
    for number in range(10):
        manager.create(f"s{number}")
    for number in (1, 4):
        manager.transition(f"s{number}", "idle")
    for number in (2, 5, 8):
        manager.terminate(f"s{number}")
    manager.begin_task("s6", "t")
    manager.terminate("s6", wait=False)


def ids(manager: SessionManager, **options: object) -> list[str]:
    """Return the ids on the first page."""
    return [session.session_id for session in manager.list(**options)]  # type: ignore[arg-type]  # passed on


def test_manager_reading_list_leaves_out_the_ended(manager: SessionManager) -> None:
    """Without a status, all but the ended ones are listed, by id."""
    fill(manager)
    assert ids(manager) == ["s0", "s1", "s3", "s4", "s6", "s7", "s9"]
    assert all(session == manager.get(session.session_id) for session in manager.list())


def test_manager_reading_list_by_status(manager: SessionManager) -> None:
    """One status or several, as members or words; ended ones where they are asked for."""
    fill(manager)
    assert ids(manager, status="idle") == ["s1", "s4"]
    assert ids(manager, status=SessionStatus.TERMINATED) == ["s2", "s5", "s8"]
    assert ids(manager, status=["terminating", SessionStatus.IDLE]) == ["s1", "s4", "s6"]
    assert ids(manager, status=["idle", "idle"]) == ["s1", "s4"]
    assert ids(manager, status=iter(SessionStatus)) == [f"s{number}" for number in range(10)]
    assert ids(manager, status=()) == []
    assert ids(manager, status="initializing") == []


def test_manager_reading_list_of_an_unknown_status(manager: SessionManager) -> None:
    """A word that is no status is a fault, not an empty page."""
    for status in ("sleeping", "", ["idle", "sleeping"]):
        with pytest.raises(LifecycleError):
            manager.list(status=status)


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 100])
def test_manager_reading_list_pages(manager: SessionManager, limit: int) -> None:
    """Pages of any length give every session once, in order, and the last one has no next."""
    fill(manager)
    found: list[str] = []
    after: str | None = None
    pages = 0
    while True:
        page = manager.list(limit=limit, after=after)
        assert len(page) <= limit
        found += [session.session_id for session in page]
        pages += 1
        if page.next is None:
            break
        assert page.next == found[-1]
        after = page.next
    assert found == ["s0", "s1", "s3", "s4", "s6", "s7", "s9"]
    assert pages == -(-7 // limit)


def test_manager_reading_list_between_changes(manager: SessionManager) -> None:
    """A page goes on behind its key, whatever became of the session there."""
    fill(manager)
    first = manager.list(limit=2)
    assert first.next == "s1"
    manager.terminate("s1")
    manager.create("s00")
    manager.create("s10")
    assert ids(manager, after=first.next) == ["s10", "s3", "s4", "s6", "s7", "s9"]
    assert ids(manager, after="zzz") == []


def test_manager_reading_list_empty(manager: SessionManager) -> None:
    """With no sessions there is one page, empty and the last."""
    page = manager.list()
    assert (page.sessions, page.next, len(page)) == ((), None, 0)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "1", None, 2**63 - 1])
def test_manager_reading_list_needs_a_limit(manager: SessionManager, limit: Any) -> None:
    """What is no number of sessions, or more than any store can count, is named."""
    with pytest.raises(ValueError, match="limit: expected a number of sessions from 1 to"):
        manager.list(limit=limit)
    assert len(manager.list(limit=2**63 - 2)) == 0


def test_manager_reading_counts(house: House, manager: SessionManager) -> None:
    """Every status is counted, those without sessions too; another manager counts the same."""
    assert manager.counts() == dict.fromkeys(SessionStatus, 0)
    fill(manager)
    told = {"initializing": 0, "active": 4, "idle": 2, "terminating": 1, "terminated": 3}
    assert manager.counts() == told
    assert list(manager.counts()) == list(SessionStatus)
    assert house.open().counts() == told
    manager.purge(ended_before=START + minutes(1))
    assert manager.counts() == told | {"terminated": 0}


def test_manager_reading_explain_changes_nothing(manager: SessionManager) -> None:
    """A dry run says what the verb would say, and writes nothing."""
    manager.create("a")
    manager.begin_task("a", "t")
    before, recorder = manager.get("a"), Recorder()
    manager.subscribe(recorder)
    assert manager.explain("a", "terminate") is None
    assert manager.explain("a", "end_task", task_id="t") is None
    refusal = manager.explain("a", "go_idle")
    assert refusal is not None
    assert (refusal.kind, refusal.status, refusal.target) == ("guard", "active", "idle")
    assert [failed.name for failed in refusal.failed_guards] == ["no active task"]
    wrong = manager.explain("a", "resume")
    assert wrong is not None
    assert wrong.kind == "wrong_status"
    doubled = manager.explain("a", "begin_task", task_id="t")
    assert doubled is not None
    assert doubled.failed_guards[0].reason == "task 't' is active already"
    assert manager.get("a") == before
    assert recorder.events == []
    with pytest.raises(SessionNotFoundError):
        manager.explain("b", "terminate")


def test_manager_reading_explain_at_the_clocks_time(
    manager: SessionManager, clock: ManualClock
) -> None:
    """Guards are asked as of now: an expired session says so before any sweep."""
    manager.create("a", config={"timeout_minutes": 1})
    manager.transition("a", "idle")
    assert manager.explain("a", "resume") is None
    assert manager.permitted("a") == ("resume", "terminate", "touch", "update")
    clock.advance(60)
    refusal = manager.explain("a", "resume")
    assert refusal is not None
    assert refusal.next_timed == ("expire", START + minutes(1))
    assert manager.permitted("a") == refusal.permitted == ("terminate", "expire", "update")


def test_manager_reading_permitted_with_arguments(manager: SessionManager) -> None:
    """What needs an argument is listed unless the argument that is given speaks against it."""
    manager.create("a")
    manager.begin_task("a", "t")
    every = ("terminate", "begin_task", "end_task", "start_conversation", "touch", "update")
    assert manager.permitted("a") == every
    assert "begin_task" not in manager.permitted("a", task_id="t")
    assert "end_task" not in manager.permitted("a", task_id="other")
    with pytest.raises(SessionNotFoundError):
        manager.permitted("b")


def test_manager_reading_history(manager: SessionManager, clock: ManualClock) -> None:
    """Each step is one event, oldest first, with what it changed, why and when."""
    manager.create("a")
    clock.advance(1)
    manager.update("a", metadata={"n": 1}, reason="because")
    clock.advance(1)
    manager.begin_task("a", "t")
    manager.end_task("a", "t")
    created, activated, updated, began, ended, rested = manager.history("a")
    assert (created.kind, created.source, created.target) == ("created", None, "initializing")
    assert created.changes["session_id"] == "a"
    assert (activated.kind, activated.source, activated.target) == (
        "moved",
        "initializing",
        "active",
    )
    assert (updated.kind, updated.trigger, updated.reason) == ("changed", "update", "because")
    assert (updated.source, updated.target) == ("active", "active")
    assert updated.changes == {"metadata": {"n": 1}}
    assert updated.at == START + minutes(1 / 60)
    assert began.changes["active_tasks"] == ["t"]
    assert ended.changes["active_tasks"] == []
    assert (rested.trigger, rested.target) == ("go_idle", "idle")
    revisions = [event.revision for event in manager.history("a")]
    assert revisions == [1, 2, 3, 4, 5, 6]
    assert len({event.digest for event in manager.history("a")}) == 6


def test_manager_reading_history_of_nobody(manager: SessionManager) -> None:
    """An id without events has no history, which is not an empty one."""
    with pytest.raises(SessionNotFoundError):
        manager.history("a")


def test_manager_reading_history_of_one_session(manager: SessionManager) -> None:
    """Sessions don't share a history, whatever their ids have in common."""
    for session_id in ("a", "ab", "A"):
        manager.create(session_id)
    manager.touch("ab")
    assert triggers(manager, "a") == triggers(manager, "A") == [None, "activate"]
    assert triggers(manager, "ab") == [None, "activate", "touch"]
