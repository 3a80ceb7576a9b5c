"""Batches: many changes of one thread, durable and seen together or not at all."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import pytest
from managing import (
    START,
    HookedStore,
    House,
    Recorder,
    Worker,
    await_event,
    begin,
    end,
    minutes,
    no_gaps,
    triggers,
)

from session_fsm import (
    GuardRejectedError,
    InvalidTransitionError,
    RevisionConflictError,
    SessionEvent,
    SessionExistsError,
    SessionFsmError,
    SessionManager,
    StoreUnavailableError,
)
from session_fsm.clock import ManualClock
from session_fsm.stores.records import Commit

pytest_plugins = ("manager_fixtures",)


def test_manager_batch_of_many_verbs(house: House, manager: SessionManager) -> None:
    """All that is done in a batch is there afterwards, in its order, for everybody."""
    recorder = Recorder()
    manager.subscribe(recorder)
    with manager.batch():
        manager.create("a")
        manager.begin_task("a", "t")
        manager.create("b", metadata={"n": 1})
        manager.update("b", metadata=lambda old: {"n": old["n"] + 1})
        assert manager.end_task("a", "t").status == "idle"
        assert manager.get("a").status == "idle"
        manager.terminate("b")
        assert manager.get("b").state.metadata == {"n": 2}
        assert [session.session_id for session in manager.list()] == ["a"]
        assert recorder.events == []
    assert recorder.told == [
        *[("a", number) for number in (1, 2, 3)],
        *[("b", number) for number in (1, 2, 3)],
        *[("a", number) for number in (4, 5)],
        *[("b", number) for number in (4, 5)],
    ]
    other = house.open()
    assert other.get("a") == manager.get("a")
    assert other.get("b").status == "terminated"
    assert other.verify().ok


def test_manager_batch_undone(house: House, manager: SessionManager) -> None:
    """An exception undoes everything, is passed on, and the manager goes on from before."""
    recorder = Recorder()
    manager.create("a", metadata={"n": 0})
    manager.subscribe(recorder)
    before = manager.get("a")
    with pytest.raises(ZeroDivisionError), manager.batch():
        manager.create("b")
        manager.update("a", metadata={"n": 1})
        manager.begin_task("a", "t")
        manager.terminate("b")
        raise ZeroDivisionError
    assert recorder.events == []
    assert manager.get("a") == before
    assert manager.find("b") is None
    assert manager.counts()["terminated"] == 0
    assert manager.store.work_in("a") == ()
    session = manager.update("a", metadata=lambda old: {"n": old["n"] + 10})
    assert (session.state.metadata, session.revision) == ({"n": 10}, 3)
    assert manager.create("b").revision == 2
    assert manager.verify().ok
    assert house.open().get("a") == session


def test_manager_batch_interrupted(manager: SessionManager) -> None:
    """An interrupt undoes it as well."""
    manager.create("a")
    with pytest.raises(KeyboardInterrupt), manager.batch():
        manager.touch("a")
        raise KeyboardInterrupt
    assert manager.get("a").revision == 2
    assert manager.touch("a").revision == 3


def test_manager_batch_refusal_inside(manager: SessionManager) -> None:
    """A verb that is refused, and caught, takes nothing else with it."""
    with manager.batch():
        manager.create("a")
        with pytest.raises(GuardRejectedError):
            manager.end_task("a", "t")
        with pytest.raises(SessionExistsError):
            manager.create("a")
        with pytest.raises(RevisionConflictError):
            manager.update("a", expected_revision=7, metadata={})
        manager.begin_task("a", "t")
        with pytest.raises(GuardRejectedError):
            manager.begin_task("a", "t")
        manager.create("b")
    assert manager.get("a").state.active_tasks == ("t",)
    assert manager.get("b").status == "active"
    assert manager.verify().ok


def test_manager_batch_is_not_seen_before_its_end(house: House, manager: SessionManager) -> None:
    """Other managers and threads see nothing of an open batch, and all of it afterwards.

    In memory a reader waits for the end; a file shows what was before.
    """
    manager.create("a")
    other = house.open()
    changed, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with manager.batch():
            manager.update("a", metadata={"n": 1})
            manager.create("b")
            changed.set()
            await_event(go_on)
            manager.update("a", metadata={"n": 2})

    working = begin(work)
    await_event(changed)
    reading = begin(lambda: (other.get("a").state.metadata, other.find("b")))
    if house.kind == "sqlite":
        [(metadata, found)] = end(reading)
        assert (metadata, found) == ({}, None)
    go_on.set()
    end(working, reading)
    metadata, found = reading.result()
    assert (metadata, found is None) in (({}, True), ({"n": 2}, False))
    assert other.get("a").state.metadata == {"n": 2}
    assert other.get("b").status == "active"


def test_manager_batch_lets_a_file_be_read(file_house: House) -> None:
    """The manager's own readers go on too while another thread has a batch open."""
    manager = file_house.open()
    before = manager.create("a")
    changed, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with manager.batch():
            manager.update("a", metadata={"n": 1})
            changed.set()
            await_event(go_on)

    working = begin(work)
    await_event(changed)
    try:
        [session] = end(begin(manager.get, "a"))
        assert session == before
    finally:
        go_on.set()
    end(working)


def test_manager_batch_of_one_thread_only(manager: SessionManager) -> None:
    """What another thread does meanwhile is no part of it: it waits, and is not undone with it."""
    manager.create("a", metadata={"n": 0})
    changed = threading.Event()
    deciding = threading.Event()

    def add(old: dict[str, int]) -> dict[str, int]:
        deciding.set()
        return {"n": old["n"] + 1}

    def other() -> SessionManager:
        await_event(changed)
        manager.update("a", metadata=add)
        manager.create("b")
        return manager

    waiting = begin(other)
    with pytest.raises(ZeroDivisionError), manager.batch():
        manager.update("a", metadata={"n": 100})
        changed.set()
        raise ZeroDivisionError
    end(waiting)
    assert manager.get("a").state.metadata == {"n": 1}
    assert manager.get("b").status == "active"


def test_manager_batch_and_other_threads_lose_nothing(house: House) -> None:
    """Batches and single changes of many threads and managers on one session: none is lost."""
    managers = [house.open(), house.open()]
    managers[0].create("a", metadata={"n": 0})
    recorder = Recorder()
    managers[0].subscribe(recorder)

    def add(old: dict[str, int]) -> dict[str, int]:
        return {"n": old["n"] + 1}

    def single(manager: SessionManager) -> None:
        for _ in range(10):
            manager.update("a", metadata=add)

    def batches(manager: SessionManager) -> None:
        for _ in range(5):
            with manager.batch():
                manager.update("a", metadata=add)
                manager.update("a", metadata=add)

    end(*(begin(work, manager) for manager in managers for work in (single, batches) * 2))
    assert managers[1].get("a").state.metadata == {"n": 80}
    assert no_gaps(managers[0], "a")
    told = [revision for _, revision in recorder.told]
    assert told == sorted(set(told))
    assert len(told) == 40
    assert managers[0].verify().ok


class _Gate:
    """Lets one thread's commit wait at the store, after it was made."""

    def __init__(self, store: HookedStore) -> None:
        self.landed, self.go_on = threading.Event(), threading.Event()
        self._thread: int | None = None
        store.after["commit"] = self._wait

    def hold(self) -> None:
        """Let the next commits of this thread wait."""
        self._thread = threading.get_ident()

    def _wait(self, _: Commit) -> None:
        if threading.get_ident() == self._thread:
            self._thread = None
            self.landed.set()
            await_event(self.go_on)


def test_manager_batch_is_told_in_order_after_a_change_before_it(house: House) -> None:
    """A change that was committed before a batch is told before it, however slow its thread."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")
    recorder, gate = Recorder(), _Gate(store)
    manager.subscribe(recorder)

    def slow() -> None:
        gate.hold()
        manager.touch("a")

    def batch() -> None:
        with manager.batch():
            manager.touch("a")
            manager.touch("a")

    changing = begin(slow)
    await_event(gate.landed)
    batching = begin(batch)
    # If the batch can go on without the change, it has the time to.
    wait([batching], timeout=0.05)
    gate.go_on.set()
    end(changing, batching)
    assert recorder.told == [("a", 3), ("a", 4), ("a", 5)]


def test_manager_batch_is_told_in_order_before_a_change_after_it(house: House) -> None:
    """A change of another thread that was waiting for a batch is told after all of the batch."""
    manager = house.open()
    for round_number in range(20):
        session_id = f"s{round_number}"
        manager.create(session_id)
        recorder, inside, decided = Recorder(), threading.Event(), threading.Event()
        stop = manager.subscribe(recorder)

        def change(_: object, decided: threading.Event = decided) -> dict[str, int]:
            decided.set()
            return {}

        def other(
            session_id: str = session_id,
            inside: threading.Event = inside,
            change: object = change,
            recorder: Recorder = recorder,
        ) -> None:
            await_event(inside)
            revision = manager.update(session_id, metadata=change).revision
            assert recorder.told[-1] == (session_id, revision), "it returned before it was told"

        waiting = begin(other)
        with manager.batch():
            manager.touch(session_id)
            inside.set()
            if house.kind == "sqlite":
                await_event(decided)
            manager.touch(session_id)
        end(waiting)
        stop()
        assert [revision for _, revision in recorder.told] == [3, 4, 5]


def test_manager_batch_subscriber_may_use_the_manager(manager: SessionManager) -> None:
    """Who is told after a batch may change the sessions, and begin a batch of its own."""
    recorder = Recorder()

    def react(event: SessionEvent) -> None:
        if event.trigger == "touch":
            with manager.batch():
                manager.update("a", metadata={"touched": event.revision})

    manager.create("a")
    manager.subscribe(react)
    manager.subscribe(recorder)
    with manager.batch():
        manager.touch("a")
    assert manager.get("a").state.metadata == {"touched": 3}
    assert recorder.told == [("a", 3), ("a", 4)]


def test_manager_batch_does_not_nest(manager: SessionManager) -> None:
    """A batch within a batch is refused at once; the outer one goes on."""
    with manager.batch():
        manager.create("a")
        with pytest.raises(SessionFsmError), manager.batch():
            manager.create("b")
        manager.touch("a")
    assert manager.get("a").revision == 3
    assert manager.find("b") is None
    with manager.batch():
        manager.touch("a")


def test_manager_batch_empty(manager: SessionManager) -> None:
    """A batch in which nothing is done does nothing."""
    recorder = Recorder()
    manager.subscribe(recorder)
    with manager.batch():
        pass
    assert recorder.events == []


def test_manager_batch_sweeps(manager: SessionManager, clock: ManualClock) -> None:
    """A sweep in a batch is a part of it."""
    manager.create("a")
    clock.advance(minutes(30))
    with pytest.raises(ZeroDivisionError), manager.batch():
        assert len(manager.sweep().fired) == 2
        raise ZeroDivisionError
    assert manager.get("a").status == "active"
    with manager.batch():
        manager.sweep()
    assert manager.get("a").status == "terminated"


def test_manager_batch_id_used_again(manager: SessionManager) -> None:
    """Sessions made and ended in a batch can be purged after it, and their ids used again."""
    with manager.batch():
        manager.create("a")
        manager.terminate("a")
    assert manager.purge(ended_before=START + minutes(1)) == 1
    with manager.batch():
        assert manager.create("a").revision == 7
        assert triggers(manager, "a") == [None, None, "activate"]
    assert manager.verify().ok


def test_manager_batch_stops_no_worker_before_its_end(manager: SessionManager) -> None:
    """A worker is stopped once the end of its session is durable; if that is undone, it runs on."""
    worker = Worker()
    manager.create("a", start=lambda _: worker)
    with pytest.raises(ZeroDivisionError), manager.batch():
        manager.terminate("a", wait=False)
        assert worker.stops == 0
        raise ZeroDivisionError
    assert worker.stops == 0
    assert (manager.get("a").status, manager.get("a").worker) == ("active", worker)
    with manager.batch():
        assert manager.terminate("a", wait=False).status == "terminating"
        assert worker.stops == 0
    assert worker.stops == 1
    assert (manager.get("a").status, manager.get("a").worker) == ("terminated", None)


def test_manager_batch_fail_stops_the_worker_after_it(manager: SessionManager) -> None:
    """The worker of a session that failed in a batch is stopped when the batch has ended."""
    worker = Worker()
    manager.create("a", start=lambda _: worker)
    with manager.batch():
        manager.fail("a", "boom")
        assert worker.stops == 0
    assert worker.stops == 1
    assert manager.store.work_in("a") == ()


def test_manager_batch_terminate_does_not_wait(manager: SessionManager) -> None:
    """In a batch nobody else could end a task, so ending a session does not wait for them."""
    manager.create("a")
    manager.begin_task("a", "t")

    def work() -> None:
        with manager.batch():
            assert manager.terminate("a").status == "terminating"

    end(begin(work))
    assert manager.end_task("a", "t").status == "terminated"


def test_manager_batch_starts_no_worker(manager: SessionManager) -> None:
    """A start in a batch is refused before anything runs: it could not be undone."""
    started: list[object] = []
    with manager.batch():
        with pytest.raises(SessionFsmError):
            manager.create("a", start=started.append)
        manager.create("b")
    assert started == []
    assert manager.find("a") is None
    assert manager.get("b").status == "active"


def test_manager_batch_commit_that_fails(file_house: House) -> None:
    """A batch whose end the store refuses is undone whole; nobody is told."""
    store = file_house.store()
    manager = file_house.open(store=store)
    manager.create("a")
    recorder = Recorder()
    manager.subscribe(recorder)

    def full(*_: object) -> None:
        raise StoreUnavailableError(problem="disk is full")

    with pytest.raises(StoreUnavailableError), manager.batch():
        manager.touch("a")
        store.before["commit"] = full
        manager.touch("a")
    store.before.clear()
    assert recorder.events == []
    assert manager.get("a").revision == 2
    assert manager.touch("a").revision == 3


def test_manager_batch_after_the_end(manager: SessionManager) -> None:
    """A session that ended in a batch refuses what comes next, in the batch and after it."""
    manager.create("a")
    with manager.batch():
        manager.terminate("a")
        with pytest.raises(InvalidTransitionError):
            manager.touch("a")
    with pytest.raises(InvalidTransitionError):
        manager.touch("a")
