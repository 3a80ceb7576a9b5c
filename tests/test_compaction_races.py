"""Compaction beside others: what they asked, did or lost meanwhile is told as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from managing import House, RemoteManager, begin, end, no_gaps, once, together

from session_fsm import SessionManager, StoreUnavailableError
from session_fsm.stores import MemoryStore
from session_fsm.stores.records import Commit

pytest_plugins = ("manager_fixtures",)

FOREVER = {"timeout_minutes": None}


def one_more(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with a counter that is one higher."""
    return {**metadata, "count": metadata.get("count", 0) + 1}


def touched(manager: SessionManager, session_id: str, times: int) -> None:
    """Create a session, and let it be touched a number of times; it has two events more."""
    manager.create(session_id, config=FOREVER)
    for _ in range(times):
        manager.touch(session_id)


def kinds(manager: SessionManager, session_id: str) -> list[tuple[str, int]]:
    """What is left of a history: kinds and revisions."""
    return [(event.kind, event.revision) for event in manager.history(session_id)]


def lost(commit: Commit) -> None:
    """Lose the answer of a commit."""
    raise StoreUnavailableError(problem="the line is dead", operation_id=commit.operation_id)


def test_compaction_races_with_a_lost_answer(house: House) -> None:
    """If what a commit wrote was compacted before it could be asked about, nobody says it was not.

    The error has the id of the operation: it may have landed, and it has. Where the last event of
    a commit stays, its fate is known as ever.
    """
    store = house.store()
    manager, other = house.open(store=store), house.open()
    touched(manager, "a", 0)
    mine = manager._core.owner_id

    def lose(commit: Commit) -> None:
        for _ in range(2):  # the ids of a commit more than the events may be kept
            other.update("a", metadata=one_more)
        other.compact("a", keep=1)
        lost(commit)

    hook = once(lose)
    store.after["commit"] = lambda commit: hook(commit) if commit.owner_id == mine else None
    with pytest.raises(StoreUnavailableError) as caught:
        manager.update("a", metadata=one_more)
    assert caught.value.operation_id is not None
    assert not store.landed("a", caught.value.operation_id)
    assert manager.get("a").state.metadata == {"count": 3}
    store.after["commit"] = once(lost)
    assert manager.update("a", metadata=one_more).state.metadata == {"count": 4}
    store.after.clear()
    store.before["commit"] = once(lost)
    with pytest.raises(StoreUnavailableError) as caught:
        manager.update("a", metadata=one_more)
    assert caught.value.operation_id is None
    assert manager.get("a").state.metadata == {"count": 4}


def test_compaction_races_with_a_recovery(
    file_house: House, remote: Callable[[], RemoteManager]
) -> None:
    """What recovery dropped is named, even if the events of it are compacted at once."""
    dead = remote()
    dead.call("create", "a")
    for task in ("t", "u"):
        dead.call("begin_task", "a", task)
    dead.kill()
    store = file_house.store()
    manager, other = file_house.open(store=store), file_house.open()
    store.after["commit"] = once(lambda _: other.compact("a", keep=1))
    report = manager.recover()
    assert (report.released, report.dropped_tasks) == (("a",), ("t", "u"))
    assert manager.history("a")[0].kind == "checkpoint"
    assert manager.verify().ok


def test_compaction_races_with_another_one(house: House) -> None:
    """Two who compact at once count no event twice, and the earlier checkpoint gives way."""
    store = house.store()
    manager, other = house.open(store=store), house.open()
    touched(manager, "a", 10)
    counted: list[int] = []
    store.before["compact"] = once(lambda *_: counted.append(other.compact("a", keep=3)))
    counted.append(manager.compact("a", keep=2))
    assert counted == [9, 1]
    assert kinds(manager, "a") == [("checkpoint", 10), ("changed", 11), ("changed", 12)]
    store.before["compact"] = once(lambda *_: [other.touch("a"), other.compact("a", keep=1)])
    assert manager.compact("a", keep=1) == 0
    assert kinds(manager, "a") == [("checkpoint", 12), ("changed", 13)]
    assert manager.verify().ok


def test_compaction_races_with_threads(house: House) -> None:
    """Three threads count while two compact and one verifies: no step is lost, all is sound."""
    managers = [house.open() for _ in range(3)]
    touched(managers[0], "a", 0)

    def count(manager: SessionManager) -> Callable[[], int]:
        def run() -> int:
            for _ in range(25):
                manager.update("a", metadata=one_more)
            return 0

        return run

    def compact(manager: SessionManager) -> Callable[[], int]:
        return lambda: sum(manager.compact("a", keep=1 + number % 4) for number in range(15))

    def problems(manager: SessionManager) -> Callable[[], int]:
        return lambda: sum(len(manager.verify().problems) for _ in range(8))

    first, second, third = managers
    *_, one, two, three = together(
        count(first), count(second), count(third), compact(second), compact(third), problems(first)
    )
    last = first.compact("a", keep=1)
    assert one + two + last == 76
    assert three == 0
    session = first.get("a")
    assert (session.revision, session.state.metadata) == (77, {"count": 75})
    assert no_gaps(first, "a")
    assert first.traffic()["update", "active"] == 75
    assert first.verify().ok


def test_compaction_races_with_processes(
    file_house: House, remote: Callable[[], RemoteManager]
) -> None:
    """Two processes count on one session while this one compacts: no step is lost."""
    manager = file_house.open()
    touched(manager, "a", 0)
    others = [remote(), remote()]
    for other in others:
        other.ask("count_up", "a", 30)
    answers = begin(lambda: [other.answer() for other in others])
    replaced = 0
    while not answers.done():
        replaced += manager.compact("a", keep=1)
    end(answers)
    replaced += manager.compact("a", keep=1)
    session = manager.get("a")
    assert (session.revision, session.state.metadata["count"], replaced) == (62, 60, 61)
    assert manager.traffic()["update", "active"] == 60
    assert manager.verify().ok


def test_compaction_keeps_memory_small() -> None:
    """In memory, too, what is kept of a session that is compacted now and then does not grow."""
    store = MemoryStore()
    with SessionManager(store) as manager:
        touched(manager, "a", 0)
        sizes = []
        for _ in range(5):
            for _ in range(40):
                manager.touch("a")
            manager.compact("a", keep=3)
            life = store._lives["a"]
            sizes.append((len(life.history), len(life.operations)))
    assert sizes == [(4, 3)] * 5
