"""Many threads and processes on the same sessions, and answers that are lost: nothing is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from managing import (
    House,
    Recorder,
    RemoteManager,
    await_event,
    begin,
    end,
    no_gaps,
    once,
    together,
    triggers,
)

from session_fsm import (
    RevisionConflictError,
    Session,
    SessionFsmError,
    SessionManager,
    SessionNotFoundError,
    StoreUnavailableError,
    TransitionError,
)
from session_fsm.stores.records import Commit

pytest_plugins = ("manager_fixtures",)

THREADS = 8


def one_more(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with a counter that is one higher."""
    return {**metadata, "count": metadata.get("count", 0) + 1}


# --- many threads on one session -------------------------------------------------------------


def test_manager_concurrency_no_update_is_lost(manager: SessionManager) -> None:
    """Eight threads count on one session: the sum is right, and every step is in the history."""
    manager.create("a")
    recorder = Recorder()
    manager.subscribe(recorder)

    def count() -> None:
        for _ in range(10):
            manager.update("a", metadata=one_more)

    together(*[count] * THREADS)
    session = manager.get("a")
    assert session.state.metadata == {"count": 80}
    assert session.revision == 82
    assert no_gaps(manager, "a")
    assert recorder.told == [("a", revision) for revision in range(3, 83)]
    counts = [event.changes["metadata"]["count"] for event in manager.history("a")[2:]]
    assert counts == list(range(1, 81))
    assert manager.verify().ok


def test_manager_concurrency_no_task_is_lost(manager: SessionManager) -> None:
    """Eight threads begin and end tasks in one session, which is at rest after them all."""
    manager.create("a", config={"max_conversations": None})

    def work(name: str) -> Callable[[], None]:
        def run() -> None:
            for number in range(5):
                with manager.task("a", f"{name}-{number}") as session:
                    assert f"{name}-{number}" in session.state.active_tasks
                    manager.start_conversation("a")

        return run

    together(*(work(f"t{number}") for number in range(THREADS)))
    session = manager.get("a")
    assert (session.status, session.state.active_tasks) == ("idle", ())
    assert session.state.conversation_count == 40
    fired = triggers(manager, "a")
    assert fired.count("begin_task") == fired.count("end_task") == 40
    assert fired.count("go_idle") == fired.count("resume") + 1
    assert no_gaps(manager, "a")
    assert manager.verify().ok


def test_manager_concurrency_no_conversation_too_many(house: House) -> None:
    """However many ask at once, through two managers, a limit is not exceeded by one."""
    managers = [house.open(), house.open()]
    managers[0].create("a", config={"max_conversations": 10})

    def start(manager: SessionManager) -> Callable[[], int]:
        def run() -> int:
            started = 0
            for _ in range(5):
                try:
                    manager.start_conversation("a")
                except TransitionError:
                    continue
                started += 1
            return started

        return run

    assert sum(together(*(start(manager) for manager in managers * 4))) == 10
    assert managers[0].get("a").state.conversation_count == 10


def test_manager_concurrency_one_winner_by_revision(house: House) -> None:
    """Of many that expect the same revision, one makes its change."""
    managers = [house.open(), house.open()]
    managers[0].create("a")

    def claim(number: int) -> Callable[[], bool]:
        def run() -> bool:
            try:
                managers[number % 2].update("a", expected_revision=2, metadata={"by": number})
            except RevisionConflictError:
                return False
            return True

        return run

    results = together(*(claim(number) for number in range(THREADS)))
    assert results.count(True) == 1
    assert managers[0].get("a").state.metadata == {"by": results.index(True)}
    assert managers[0].get("a").revision == 3


def test_manager_concurrency_many_ends(house: House) -> None:
    """Ends, failures, updates and tasks at once: each session has one legal end."""
    managers = [house.open(), house.open()]
    for number in range(6):
        session_id = f"s{number}"
        managers[0].create(session_id)

        def tolerant(verb: Callable[[], Session]) -> Callable[[], None]:
            def run() -> None:
                with contextlib.suppress(TransitionError):
                    verb()

            return run

        verbs: list[Callable[[], Session]] = [
            partial(managers[0].terminate, session_id),
            partial(managers[1].terminate, session_id),
            partial(managers[1].fail, session_id, "boom"),
            partial(managers[0].update, session_id, metadata=one_more),
            partial(managers[1].touch, session_id),
            partial(managers[0].transition, session_id, "idle"),
        ]
        together(*map(tolerant, verbs))
        assert managers[0].get(session_id).status == "terminated"
        assert triggers(managers[0], session_id).count("finish") == 1
        assert no_gaps(managers[0], session_id)
    assert managers[1].verify().ok


# --- many sessions ---------------------------------------------------------------------------


def test_manager_concurrency_sessions_do_not_wait(manager: SessionManager) -> None:
    """While the decision on one session takes its time, all others go on."""
    for number in range(THREADS):
        manager.create(f"s{number}")
    deciding, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> dict[str, Any]:
        deciding.set()
        await_event(go_on)
        return {"slow": True}

    held = begin(manager.update, "s0", metadata=slow)
    await_event(deciding)

    def live(number: int) -> Callable[[], str]:
        def run() -> str:
            session_id = f"s{number}"
            with manager.task(session_id, "t"):
                manager.update(session_id, metadata=one_more)
            manager.create(f"new-{number}")
            manager.sweep()
            return manager.terminate(session_id).status

        return run

    assert together(*(live(number) for number in range(1, THREADS))) == ["terminated"] * 7
    assert manager.get("s0").revision == 2
    assert not held.done()
    go_on.set()
    end(held)
    assert manager.get("s0").state.metadata == {"slow": True}


def test_manager_concurrency_starts_do_not_wait(manager: SessionManager) -> None:
    """Eight starts are under way at once: each waits for all the others to have begun."""
    barrier = threading.Barrier(THREADS)

    def create(number: int) -> Callable[[], str]:
        def start(_: Session) -> object:
            barrier.wait(20)
            return object()

        return lambda: manager.create(f"s{number}", start=start).status

    assert together(*(create(number) for number in range(THREADS))) == ["active"] * THREADS


def test_manager_concurrency_stops_do_not_wait(manager: SessionManager) -> None:
    """Eight workers are stopped at once: each waits for all the others to be stopping."""
    barrier = threading.Barrier(THREADS)

    class Worker:
        def stop(self) -> None:
            barrier.wait(20)

    for number in range(THREADS):
        manager.create(f"s{number}", start=lambda _: Worker())
    ends = [lambda number=number: manager.terminate(f"s{number}").status for number in range(8)]
    assert together(*ends) == ["terminated"] * THREADS


def test_manager_concurrency_many_more_than_are_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more sessions than a manager keeps in mind, nothing changes but what is read again."""
    monkeypatch.setattr("session_fsm.core.MAX_RECENT_SESSIONS", 3)
    manager = house.open()
    for number in range(12):
        manager.create(f"s{number}")

    def count(first: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(24):
                manager.update(f"s{(first + number) % 12}", metadata=one_more)

        return run

    together(*(count(first) for first in range(4)))
    assert all(session.state.metadata == {"count": 8} for session in manager.list())
    assert len(manager._core.slots) <= 3
    assert manager.verify().ok


# --- processes -------------------------------------------------------------------------------


def test_manager_concurrency_processes_lose_nothing(
    file_house: House, remote: Callable[[], RemoteManager]
) -> None:
    """Two processes and this one count on one session: the sum is right, without a gap."""
    manager = file_house.open()
    manager.create("a")
    others = [remote(), remote()]
    for other in others:
        other.ask("count_up", "a", 60)
    for _ in range(60):
        manager.update("a", metadata=one_more)
    for other in others:
        other.answer()
    assert manager.get("a").state.metadata == {"count": 180}
    assert manager.get("a").revision == 182
    assert no_gaps(manager, "a")
    assert manager.verify().ok


def test_manager_concurrency_processes_with_tasks(
    file_house: House, remote: Callable[[], RemoteManager]
) -> None:
    """Tasks of several processes in one session wake it and let it rest, and none is lost."""
    manager = file_house.open()
    manager.create("a", config={"max_conversations": None})
    others = [remote(), remote()]
    for number, other in enumerate(others):
        other.ask("work", "a", f"p{number}", 20)
    for other in others:
        other.answer()
    session = manager.get("a")
    assert (session.status, session.state.conversation_count) == ("idle", 40)
    assert manager.store.work_in("a") == ()
    assert manager.verify().ok


# --- answers that are lost -------------------------------------------------------------------


def lost(commit: Commit) -> None:
    """Lose the answer to a commit."""
    raise StoreUnavailableError(problem="the line is dead", operation_id=commit.operation_id)


VERBS: list[Callable[[SessionManager], Session]] = [
    lambda manager: manager.update("a", metadata=one_more),
    lambda manager: manager.begin_task("a", "t"),
    lambda manager: manager.fail("a", "boom"),
    lambda manager: manager.create("b", metadata={"count": 1}),
]


@pytest.mark.parametrize("verb", VERBS)
def test_manager_concurrency_lost_answer_of_what_landed(
    house: House, verb: Callable[[SessionManager], Session]
) -> None:
    """A commit that landed while its answer was lost is made once, answered and told once."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")
    before = manager.get("a").revision
    recorder = Recorder()
    manager.subscribe(recorder)
    store.after["commit"] = once(lost)
    session = verb(manager)
    assert session == manager.get(session.session_id)
    session_id = session.session_id
    first = before + 1 if session_id == "a" else 1
    assert recorder.told == [(session_id, number) for number in range(first, session.revision + 1)]
    assert no_gaps(manager, session_id)
    if session.status == "active":
        manager.update(session_id, metadata=one_more)
    assert manager.verify().ok


@pytest.mark.parametrize("verb", VERBS)
def test_manager_concurrency_lost_before_it_landed(
    house: House, verb: Callable[[SessionManager], Session]
) -> None:
    """A commit that did not land has changed nothing, and says so; the manager goes on."""
    store = house.store()
    manager = house.open(store=store)
    before = manager.create("a")
    recorder = Recorder()
    manager.subscribe(recorder)
    store.before["commit"] = once(lost)
    with pytest.raises(StoreUnavailableError) as caught:
        verb(manager)
    assert caught.value.operation_id is None
    assert manager.get("a") == before
    assert manager.find("b") is None
    assert recorder.events == []
    session = verb(manager)
    assert session == manager.get(session.session_id)
    assert no_gaps(manager, session.session_id)
    assert manager.verify().ok


def test_manager_concurrency_fate_that_nobody_knows(house: House) -> None:
    """If even the question is not answered, the error says which operation it is about."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")
    operations: list[str] = []

    def lose(commit: Commit) -> None:
        operations.append(commit.operation_id)
        lost(commit)

    def dead(*_: object) -> None:
        raise StoreUnavailableError(problem="still dead")

    store.after["commit"] = once(lose)
    store.before["landed"] = dead
    with pytest.raises(StoreUnavailableError) as caught:
        manager.update("a", metadata=one_more)
    assert caught.value.operation_id == operations[0]
    store.before.clear()
    assert store.landed("a", operations[0])
    # It had landed: whoever goes on does so from there.
    assert manager.update("a", metadata=one_more).state.metadata == {"count": 2}
    assert manager.verify().ok


def test_manager_concurrency_lost_answer_that_others_overtook(house: House) -> None:
    """Another writer comes between the commit and the question: it is still not made twice."""
    store = house.store()
    manager, other = house.open(store=store), house.open()
    manager.create("a")

    def lose(commit: Commit) -> None:
        other.update("a", metadata=one_more)
        lost(commit)

    mine = manager._core.owner_id
    hook = once(lose)
    store.after["commit"] = lambda commit: hook(commit) if commit.owner_id == mine else None
    session = manager.update("a", metadata=one_more)
    assert (session.revision, session.state.metadata) == (3, {"count": 1})
    assert manager.get("a").state.metadata == {"count": 2}
    assert manager.update("a", metadata=one_more).state.metadata == {"count": 3}
    assert manager.verify().ok


@pytest.mark.parametrize("when", ["before", "after"])
def test_manager_concurrency_interrupted_commit(house: House, when: str) -> None:
    """An interrupt around a commit passes through; the manager goes on from what is stored."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    (store.before if when == "before" else store.after)["commit"] = once(interrupt)
    with pytest.raises(KeyboardInterrupt):
        manager.update("a", metadata=one_more)
    landed = 1 if when == "after" else 0
    assert manager.get("a").revision == 2 + landed
    session = manager.update("a", metadata=one_more)
    assert session.state.metadata == {"count": landed + 1}
    assert no_gaps(manager, "a")
    assert manager.verify().ok


@pytest.mark.parametrize("fault", [OSError("disk"), MemoryError(), RuntimeError("bug")])
def test_manager_concurrency_store_that_breaks(house: House, fault: Exception) -> None:
    """Whatever a store raises passes through, and leaves no lock behind."""
    store = house.store()
    manager = house.open(store=store)
    before = manager.create("a")

    def fail(_: object) -> None:
        raise fault

    for method in ("commit", "load"):
        store.before[method] = fail
        with pytest.raises(type(fault)):
            manager.update("a", metadata=one_more)
        store.before.clear()
    assert manager.get("a") == before
    end(begin(manager.touch, "a"))


def test_manager_concurrency_purged_and_made_anew(house: House) -> None:
    """Sessions that are ended, purged and made anew while others change them: no mixed lives."""
    managers = [house.open(), house.open()]
    managers[0].create("a", metadata={"life": 0})
    stop = threading.Event()

    def renew() -> None:
        try:
            for life in range(1, 11):
                managers[0].terminate("a")
                managers[0].purge(ended_before=house.clock.advance(1))
                managers[0].create("a", metadata={"life": life})
        finally:
            stop.set()

    def change() -> None:
        while not stop.is_set():
            try:
                managers[1].update("a", metadata=one_more)
            except (TransitionError, SessionNotFoundError):
                continue

    together(renew, change)
    events = managers[1].history("a")
    assert [event.kind for event in events[:2]] == ["purged", "created"]
    metadata = managers[1].get("a").state.metadata
    updates = [event for event in events if event.trigger == "update"]
    assert metadata["life"] == 10
    assert metadata.get("count", 0) == len(updates)
    assert no_gaps(managers[0], "a")
    assert managers[0].verify().ok


def test_manager_concurrency_errors_are_the_librarys(house: House) -> None:
    """Two managers that race in every way meet only errors that the library means to raise."""
    managers = [house.open(), house.open()]
    faults: list[BaseException] = []

    def run(manager: SessionManager, seed: int) -> Callable[[], None]:
        verbs: list[Callable[[str], object]] = [
            manager.create,
            lambda session_id: manager.begin_task(session_id, f"t{seed}"),
            lambda session_id: manager.end_task(session_id, f"t{seed}"),
            manager.touch,
            lambda session_id: manager.fail(session_id, "boom"),
            lambda session_id: manager.terminate(session_id, wait=False),
            lambda session_id: manager.transition(session_id, "idle"),
            lambda _: manager.purge(ended_before=house.clock.advance(1)),
            lambda _: manager.sweep(),
        ]

        def work() -> None:
            for number in range(40):
                verb = verbs[(number * 7 + seed * 3) % len(verbs)]
                try:
                    verb(f"s{(number + seed) % 3}")
                except SessionFsmError as fault:
                    faults.append(fault)

        return work

    together(*(run(managers[seed % 2], seed) for seed in range(4)))
    assert {type(fault).__name__ for fault in faults} <= {
        "InvalidTransitionError",
        "GuardRejectedError",
        "SessionExistsError",
        "SessionNotFoundError",
    }
    assert managers[0].verify().ok
