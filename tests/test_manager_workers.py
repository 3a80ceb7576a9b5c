"""What runs for a session: stopped once, after the end has begun, and before it is done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from managing import (
    PATIENCE_SECONDS,
    START,
    House,
    RemoteManager,
    Worker,
    await_event,
    begin,
    end,
    minutes,
    once,
    seconds,
    together,
    triggers,
    work_left,
)

from session_fsm import (
    CorruptRecordError,
    FencedError,
    Session,
    SessionManager,
    StoreUnavailableError,
)
from session_fsm.clock import ManualClock
from session_fsm.stores.records import Commit, Work

pytest_plugins = ("manager_fixtures",)


def with_worker(manager: SessionManager, session_id: str, worker: object) -> Session:
    """Create a session that a worker runs for."""
    return manager.create(session_id, start=lambda _: worker)


def test_manager_workers_are_stopped_between_terminating_and_the_end(
    manager: SessionManager,
) -> None:
    """When its worker is stopped, a session is terminating in the store, and not yet ended."""
    seen: list[Session] = []
    worker = Worker(lambda: seen.append(manager.get("a")))
    with_worker(manager, "a", worker)
    session = manager.terminate("a")
    assert [each.status for each in seen] == ["terminating"]
    assert (session.status, session.worker, worker.stops) == ("terminated", None, 1)
    assert manager.get("a").worker is None
    assert triggers(manager, "a")[2:] == ["terminate", "finish"]
    assert work_left(manager, "a") == set()


@pytest.mark.parametrize(
    "finish",
    [
        lambda manager: manager.terminate("a", wait=False),
        lambda manager: manager.fire("a", "terminate"),
        lambda manager: manager.transition("a", "terminating"),
        lambda manager: manager.fail("a", "boom"),
    ],
)
def test_manager_workers_are_stopped_by_every_end(
    manager: SessionManager, finish: Callable[[SessionManager], Session]
) -> None:
    """Whatever ends a session stops its worker, once, and the session has ended afterwards."""
    worker = Worker()
    with_worker(manager, "a", worker)
    assert finish(manager).status == "terminated"
    assert worker.stops == 1
    manager.sweep()
    manager.terminate("a")
    assert worker.stops == 1
    assert work_left(manager, "a") == set()


def test_manager_workers_are_stopped_before_tasks_are_waited_for(manager: SessionManager) -> None:
    """A worker is stopped at once; the session then waits for its tasks alone."""
    worker = Worker()
    with_worker(manager, "a", worker)
    manager.begin_task("a", "t")
    session = manager.terminate("a", wait=False)
    assert (session.status, worker.stops) == ("terminating", 1)
    assert work_left(manager, "a") == {Work("stop"), Work("task", "t")}
    assert manager.end_task("a", "t").status == "terminated"


def test_manager_workers_may_end_their_tasks_in_stop(manager: SessionManager) -> None:
    """A worker may use the manager while it is stopped: to end its tasks, to note what it did."""

    def stop() -> None:
        manager.update("a", metadata={"saved": True})
        manager.end_task("a", "t")

    worker = Worker(stop)
    with_worker(manager, "a", worker)
    manager.begin_task("a", "t")
    session = manager.terminate("a")
    assert (session.status, session.state.error) == ("terminated", None)
    assert session.state.metadata == {"saved": True}
    assert worker.stops == 1
    assert triggers(manager, "a")[-1] == "finish"


def test_manager_workers_hold_up_the_end(manager: SessionManager) -> None:
    """While a worker is being stopped its session does not finish, whoever else looks after it."""
    stopping, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        stopping.set()
        await_event(go_on)

    worker = Worker(stop)
    with_worker(manager, "a", worker)
    manager.begin_task("a", "t")
    ending = begin(manager.terminate, "a")
    await_event(stopping)
    assert manager.get("a").status == "terminating"
    assert manager.end_task("a", "t").status == "terminating"
    assert manager.terminate("a", wait=False).status == "terminating"
    manager.sweep()
    assert manager.get("a").status == "terminating"
    go_on.set()
    [session] = end(ending)
    assert (session.status, session.state.error) == ("terminated", None)
    assert worker.stops == 1


def test_manager_workers_that_hang_keep_no_lock(
    manager: SessionManager, clock: ManualClock
) -> None:
    """A worker that does not come back holds up its caller alone; the deadline ends the session."""
    stopping, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        stopping.set()
        await_event(go_on)

    with_worker(manager, "a", Worker(hang))
    ending = begin(manager.terminate, "a")
    await_event(stopping)
    manager.update("a", metadata={"n": 1})
    manager.create("b")
    clock.advance(10)
    assert [event.trigger for event in manager.sweep().fired] == ["stop_timeout"]
    assert manager.get("a").state.error == "the stop did not end within 10 s"
    go_on.set()
    [session] = end(ending)
    assert session == manager.get("a")
    assert work_left(manager, "a") == set()


def test_manager_workers_that_raise(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that fails to stop is logged; its session ends all the same."""

    def fail() -> None:
        raise RuntimeError("won't")

    worker = Worker(fail)
    with_worker(manager, "a", worker)
    with caplog.at_level(logging.ERROR, "session_fsm"):
        assert manager.terminate("a").status == "terminated"
    assert "won't" in caplog.text
    assert worker.stops == 1
    assert work_left(manager, "a") == set()


def test_manager_workers_interrupted_while_they_stop(manager: SessionManager) -> None:
    """An interrupt during a stop passes through; the next sweep goes on with the end."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    worker = Worker(interrupt)
    with_worker(manager, "a", worker)
    with pytest.raises(KeyboardInterrupt):
        manager.terminate("a")
    assert manager.get("a").status == "terminating"
    manager.sweep()
    assert manager.get("a").status == "terminated"
    assert worker.stops == 1


def test_manager_workers_of_a_lapsed_owner_stop_at_the_same_time(manager: SessionManager) -> None:
    """No worker of an owner who is counted as dead runs on because another one takes long."""
    all_of_them = threading.Barrier(3, timeout=PATIENCE_SECONDS)
    workers = [Worker(all_of_them.wait) for _ in range(3)]
    for number, worker in enumerate(workers):
        with_worker(manager, f"s{number}", worker)
    manager._lapsed()
    assert [worker.stops for worker in workers] == [1, 1, 1]
    assert not all_of_them.broken


@pytest.mark.parametrize("way", ["create", "recover"])
def test_manager_workers_started_by_a_lapsed_owner(house: House, way: str) -> None:
    """What was started while its owner came to be counted as dead is stopped, and not claimed."""
    if way == "recover":
        dead = house.open()
        dead.create("a", config={"recovery": "restart"}, start=lambda _: Worker())
        dead.close()
    manager = house.open()
    worker = Worker()

    def start(_: Session) -> Worker:
        manager._lapsed()
        return worker

    if way == "recover" and house.kind == "sqlite":
        assert [session_id for session_id, _ in manager.recover(restart=start).failed] == ["a"]
    else:
        with pytest.raises(FencedError):
            if way == "recover":
                manager.recover(restart=start)
            else:
                manager.create("a", start=start)
    # The former owner is dead to its own process, too.
    report = manager.recover()
    assert (report.released if way == "recover" else report.ended) == ("a",)
    manager._lapsed()
    assert worker.stops == 1


def test_manager_workers_are_claimed_if_they_run(manager: SessionManager) -> None:
    """A start that leaves nothing running claims nothing, though others start the same id."""

    def start(_: Session) -> None:
        manager._workers.expect("a")  # as who is about to be refused does
        manager._workers.expect("a")

    assert manager.create("a", start=start).status == "active"
    assert work_left(manager, "a") == set()


def test_manager_workers_without_stop(manager: SessionManager) -> None:
    """Whatever a start returns is the worker; only what has a `stop` is stopped."""
    for session_id, worker in (("a", 0), ("b", "text"), ("c", object())):
        assert with_worker(manager, session_id, worker).worker is worker
        assert manager.get(session_id).worker is worker
        assert manager.terminate(session_id).status == "terminated"
        assert manager.get(session_id).worker is None


def test_manager_workers_are_stopped_once_by_many(manager: SessionManager) -> None:
    """However many end a session at once, its worker is stopped once and then it has ended."""
    for number in range(10):
        session_id = f"s{number}"
        worker = Worker()
        with_worker(manager, session_id, worker)

        def ending(session_id: str = session_id) -> Session:
            return manager.terminate(session_id)

        def failing(session_id: str = session_id) -> Session:
            return manager.fail(session_id, "boom")

        def sweeping(session_id: str = session_id) -> Session:
            manager.sweep()
            return manager.terminate(session_id)

        sessions = together(ending, ending, failing, sweeping)
        assert {session.status for session in sessions} == {"terminated"}
        assert worker.stops == 1
    assert manager.verify().ok


# --- expiry and other managers ---------------------------------------------------------------


def test_manager_workers_are_stopped_on_expiry(manager: SessionManager, clock: ManualClock) -> None:
    """The sweep that lets a session expire stops its worker, and tells all that it did."""
    worker = Worker()
    with_worker(manager, "a", worker)
    clock.advance(minutes(30))
    report = manager.sweep()
    assert [event.trigger for event in report.fired] == ["expire", "finish"]
    assert (manager.get("a").status, worker.stops) == ("terminated", 1)
    assert report.next_deadline is None
    assert report.next_deadline == manager.next_deadline()


@pytest.mark.parametrize("way", ["sweep", "terminate", "fail"])
def test_manager_workers_of_a_session_that_another_ended(house: House, way: str) -> None:
    """Ended by another manager, a worker is stopped at this one's next sweep; then it finishes."""
    manager, other = house.open(), house.open()
    worker = Worker()
    with_worker(manager, "a", worker)
    if way == "sweep":
        house.clock.advance(minutes(30))
        other.sweep()
    elif way == "terminate":
        other.terminate("a", wait=False)
    else:
        other.fail("a", "boom")
    assert worker.stops == 0
    assert other.get("a").status == ("terminated" if way == "fail" else "terminating")
    assert other.get("a").worker is None
    other.sweep()
    assert other.get("a").status == ("terminated" if way == "fail" else "terminating")
    assert Work("worker") in work_left(manager, "a")
    report = manager.sweep()
    assert worker.stops == 1
    assert manager.get("a").status == "terminated"
    assert [event.trigger for event in report.fired] == ([] if way == "fail" else ["finish"])
    assert work_left(manager, "a") == set()
    manager.sweep()
    assert worker.stops == 1


def test_manager_workers_are_waited_for_by_another_manager(house: House) -> None:
    """Who ends a session that another manager runs a worker for waits until that one is stopped."""
    manager, other = house.open(), house.open()
    worker = Worker()
    with_worker(manager, "a", worker)
    ending = begin(other.terminate, "a")
    while worker.stops == 0:
        manager.sweep()
    while not ending.done():
        house.clock.advance(0.05)
    [session] = end(ending)
    assert (session.status, session.state.error) == ("terminated", None)


def test_manager_workers_of_another_manager_that_does_nothing(house: House) -> None:
    """A worker that nobody stops does not hold up the end beyond the deadline."""
    manager, other = house.open(), house.open()
    worker = Worker()
    with_worker(manager, "a", worker)
    assert other.terminate("a", wait=False).status == "terminating"
    house.clock.advance(10)
    assert [event.trigger for event in other.sweep().fired] == ["stop_timeout"]
    assert worker.stops == 0
    manager.sweep()
    assert worker.stops == 1
    assert work_left(manager, "a") == set()


def test_manager_workers_are_stopped_by_any_verb_that_sees_the_end(house: House) -> None:
    """A verb that finds its session ended elsewhere stops the worker at once."""
    manager, other = house.open(), house.open()
    worker = Worker()
    with_worker(manager, "a", worker)
    other.begin_task("a", "t")
    other.terminate("a", wait=False)
    assert manager.end_task("a", "t").status == "terminated"
    assert worker.stops == 1


def test_manager_workers_are_stopped_before_a_purge(house: House) -> None:
    """A session whose worker still runs elsewhere is purged once that was stopped, not before."""
    manager, other = house.open(), house.open()
    worker = Worker()
    with_worker(manager, "a", worker)
    other.fail("a", "boom")
    other.create("b")
    other.terminate("b")
    assert other.purge(ended_before=START + seconds(1)) == 1
    assert (other.get("a").status, other.find("b")) == ("terminated", None)
    assert manager.purge(ended_before=START + seconds(1)) == 1
    assert worker.stops == 1
    assert with_worker(other, "a", Worker()).status == "active"
    manager.sweep()
    assert manager.get("a").status == "active"


def test_manager_workers_of_dead_managers_hold_up_no_purge(house: House) -> None:
    """The worker of a manager that is gone runs no longer; its session may be purged."""
    manager, other = house.open(), house.open()
    with_worker(manager, "a", Worker())
    other.fail("a", "boom")
    manager.close()
    assert other.purge(ended_before=START + seconds(1)) == 1
    assert other.store.work_in("a") == ()


def test_manager_workers_of_another_process(
    file_house: House, remote: Callable[[], RemoteManager]
) -> None:
    """A session that this process ends: the worker in the other one is stopped at its sweep."""
    manager, there = file_house.open(), remote()
    there.call("create_with_worker", "a")
    there.call("create_with_worker", "b")
    file_house.clock.advance(minutes(30))
    assert [event.trigger for event in manager.sweep().fired] == ["expire", "expire"]
    assert manager.counts()["terminating"] == 2
    assert there.call("stopped_workers") == []
    assert there.call("sweep") == [["a", "finish"], ["b", "finish"]]
    assert there.call("stopped_workers") == ["a", "b"]
    assert manager.counts()["terminated"] == 2
    assert manager.sweep().next_deadline is None


# --- nobody waits for a timeout that has nothing to wait for ---------------------------------


def test_manager_workers_let_go_while_a_task_ends(house: House) -> None:
    """The last task ends elsewhere just before the stopped worker is let go of: it has ended."""
    store = house.store()
    manager, other = house.open(store=store), house.open()
    with_worker(manager, "a", Worker())
    other.begin_task("a", "t")
    store.before["release"] = once(lambda *_: other.end_task("a", "t"))
    session = manager.terminate("a", wait=False)
    assert session.status == manager.get("a").status == "terminated"
    assert triggers(manager, "a")[-1] == "finish"


def test_manager_workers_let_go_while_a_task_ends_elsewhere(house: House) -> None:
    """The worker is let go of just before the end of the last task lands: it has ended."""
    manager = house.open()
    store = house.store()
    other = house.open(store=store)
    with_worker(manager, "a", Worker())
    other.begin_task("a", "t")
    other.terminate("a", wait=False)
    mine = other._core.owner_id
    hook = once(lambda _: manager.sweep())
    store.before["commit"] = lambda commit: hook(commit) if commit.owner_id == mine else None
    session = other.end_task("a", "t")
    assert session.status == manager.get("a").status == "terminated"
    assert triggers(manager, "a")[-1] == "finish"


def test_manager_workers_that_stop_badly_hold_up_nobody(house: House) -> None:
    """In a sweep, a session whose end can't be gone on with does not keep others from theirs."""
    store = house.store()
    manager, other = house.open(store=store), house.open()
    workers = {session_id: Worker() for session_id in "abc"}
    for session_id, worker in workers.items():
        with_worker(manager, session_id, worker)
        other.terminate(session_id, wait=False)

    def poisoned_load(session_id: str) -> None:
        if session_id == "a":
            raise CorruptRecordError(record="session 'a'", problems=("poisoned",))

    store.before["load"] = poisoned_load
    report = manager.sweep()
    store.before.clear()
    assert [worker.stops for worker in workers.values()] == [1, 1, 1]
    assert [manager.get(session_id).status for session_id in "bc"] == ["terminated"] * 2
    assert [session_id for session_id, _ in report.failed] == ["a"]
    manager.sweep()
    assert manager.get("a").status == "terminated"


# --- a store that can't be reached any longer ------------------------------------------------


def _cut_off(*_: object) -> None:
    raise StoreUnavailableError(problem="cut off")


def test_manager_workers_whose_end_cannot_be_noted(house: House) -> None:
    """What was asked for is made, whatever becomes of the note that a worker has stopped."""
    store = house.store()
    manager = house.open(store=store)
    worker = Worker()
    with_worker(manager, "a", worker)
    store.after["commit"] = once(lambda _: store.before.update(commit=_cut_off))
    session = manager.terminate("a", reason="enough", wait=False)
    assert (session.status, worker.stops) == ("terminating", 1)
    store.before.clear()
    assert [event.trigger for event in manager.sweep().fired] == ["finish"]


def test_manager_workers_that_cannot_be_asked_for(house: House) -> None:
    """An update of a session on its way out is told as made, though nobody can go on with it."""
    store = house.store()
    manager, other = house.open(store=store), house.open(store=store)
    with_worker(manager, "a", Worker())
    other.terminate("a", wait=False)
    store.before["work_in"] = _cut_off
    session = other.update("a", metadata={"n": 1})
    assert (session.status, dict(session.state.metadata)) == ("terminating", {"n": 1})
    store.before.clear()
    assert session.revision == manager.get("a").revision


def test_manager_workers_started_anew_stay_whose_they_are(house: House) -> None:
    """A session whose worker was started anew is not given back when the store is lost then."""
    store = house.store()
    manager, other, third = (house.open(store=store) for _ in range(3))
    manager.create("a", config={"recovery": "restart"}, start=lambda _: Worker())
    manager.close()
    worker = Worker()

    def start(_: Session) -> Worker:
        store.before["load"] = _cut_off
        return worker

    report = other.recover(restart=start)
    store.before.clear()
    assert (report.restarted, report.failed) == (("a",), ())
    assert store.work_of("a", other._core.owner_id) == (Work("worker"),)
    assert third.recover(restart=start).restarted == ()
    assert worker.stops == 0


def test_manager_workers_of_a_start_that_nobody_knew_had_landed(house: House) -> None:
    """A session that was activated after all, though its worker was stopped, is put to rest."""
    store = house.store()
    manager = house.open(store=store)
    worker = Worker()

    def lost(commit: Commit) -> None:
        if Work("worker") in commit.claims:
            store.before["landed"] = _cut_off
            raise StoreUnavailableError(problem="lost", operation_id=commit.operation_id)

    store.after["commit"] = lost
    with pytest.raises(StoreUnavailableError):
        with_worker(manager, "a", worker)
    store.after.clear()
    assert worker.stops == 1
    assert manager.recover().released == ()  # nobody knows yet
    assert work_left(manager, "a") == {Work("worker")}
    store.before.clear()
    assert manager.recover().released == ("a",)
    assert (manager.get("a").status, work_left(manager, "a")) == ("idle", set())
    assert manager.recover().released == ()
