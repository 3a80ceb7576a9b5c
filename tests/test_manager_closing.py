"""Closing a manager: every verb says so, workers are stopped, nothing is left open."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from managing import START, House, Worker, await_event, begin, end, wait_until

from session_fsm import (
    SESSION_LIFECYCLE,
    LifecycleError,
    ManagerClosedError,
    Session,
    SessionManager,
    StoreUnavailableError,
)
from session_fsm.changes import Observer
from session_fsm.stores import MemoryStore, SqliteStore

pytest_plugins = ("manager_fixtures",)


def _task(manager: SessionManager) -> None:
    with manager.task("a", "t"):
        raise AssertionError("a closed manager began a task")


def _start(_: Session) -> None:
    raise AssertionError("a closed manager started a session")


def _batch(manager: SessionManager) -> None:
    with manager.batch():
        raise AssertionError("a closed manager opened a batch")


def _enter(manager: SessionManager) -> None:
    with manager:
        raise AssertionError("a closed manager was entered")


def _given(worker: Worker, _: object) -> Worker:
    return worker


VERBS: dict[str, Callable[[SessionManager], Any]] = {
    "create": lambda manager: manager.create("b"),
    "create with start": lambda manager: manager.create("b", start=_start),
    "get": lambda manager: manager.get("a"),
    "find": lambda manager: manager.find("a"),
    "list": lambda manager: manager.list(),
    "counts": lambda manager: manager.counts(),
    "traffic": lambda manager: manager.traffic(),
    "transition": lambda manager: manager.transition("a", "idle"),
    "fire": lambda manager: manager.fire("a", "touch"),
    "explain": lambda manager: manager.explain("a", "touch"),
    "permitted": lambda manager: manager.permitted("a"),
    "update": lambda manager: manager.update("a", metadata={}),
    "context": lambda manager: manager.context("a"),
    "send_message": lambda manager: manager.send_message("a", "user", "hello"),
    "begin_task": lambda manager: manager.begin_task("a", "t"),
    "end_task": lambda manager: manager.end_task("a", "t"),
    "task": _task,
    "start_conversation": lambda manager: manager.start_conversation("a"),
    "touch": lambda manager: manager.touch("a"),
    "terminate": lambda manager: manager.terminate("a"),
    "fail": lambda manager: manager.fail("a", "boom"),
    "sweep": lambda manager: manager.sweep(),
    "next_deadline": lambda manager: manager.next_deadline(),
    "recover": lambda manager: manager.recover(),
    "purge": lambda manager: manager.purge(ended_before=START),
    "compact": lambda manager: manager.compact("a"),
    "history": lambda manager: manager.history("a"),
    "table": lambda manager: manager.table("a", "files"),
    "subscribe": lambda manager: manager.subscribe(lambda _: None),
    "on_enter": lambda manager: manager.on_enter("idle", lambda _: None),
    "on_leave": lambda manager: manager.on_leave("idle", lambda _: None),
    "observe": lambda manager: manager.observe(cast("Observer", object())),
    "position": lambda manager: manager.position(),
    "read_events": lambda manager: manager.read_events(),
    "events": lambda manager: manager.events(),
    "verify": lambda manager: manager.verify(),
    "batch": _batch,
    "with": _enter,
}


def test_manager_closing_every_verb_is_tried() -> None:
    """The list below has every public method of a manager that does something."""
    public = {name for name in dir(SessionManager) if not name.startswith("_")}
    assert public - VERBS.keys() == {"close", "lifecycle", "store"}


@pytest.mark.parametrize("verb", VERBS)
def test_manager_closing_ends_every_verb(house: House, verb: str) -> None:
    """A closed manager refuses each verb, and does nothing of it."""
    manager = house.open()
    before = manager.create("a")
    manager.close()
    with pytest.raises(ManagerClosedError):
        VERBS[verb](manager)
    other = house.open()
    assert other.get("a") == before
    assert other.find("b") is None


def test_manager_closing_ends_every_table(house: House) -> None:
    """A table that was got before refuses each of its verbs once its manager is closed."""
    manager, other = house.open(), house.open()
    manager.create("a")
    table = manager.table("a", "files")
    table.put("k", 1)
    manager.close()
    verbs: dict[str, Callable[[], object]] = {
        "get": lambda: table.get("k"),
        "find": lambda: table.find("k"),
        "items": table.items,
        "put": lambda: table.put("k", 2),
        "delete": lambda: table.delete("k"),
        "clear": table.clear,
    }
    public = {name for name in dir(table) if not name.startswith("_")}
    assert public - verbs.keys() == {"name", "session_id"}
    for verb in verbs.values():
        with pytest.raises(ManagerClosedError):
            verb()
    assert other.table("a", "files").get("k") == 1


def test_manager_closing_twice(house: House) -> None:
    """Closing again is harmless, also by several threads at once, and by leaving a block."""
    manager = house.open()
    with manager:
        manager.create("a")
        manager.close()
    manager.close()
    other = house.open()
    end(*(begin(other.close) for _ in range(4)))


def test_manager_closing_leaves_an_injected_store(tmp_path: Path) -> None:
    """A store that was handed in is its owner's: it stays open, for others too."""
    for store in (MemoryStore(), SqliteStore(tmp_path / "a.db")):
        first, second = SessionManager(store), SessionManager(store)
        first.create("a")
        first.close()
        assert second.get("a").status == "active"
        assert store.load("a") is not None
        second.close()
        store.close()


def test_manager_closing_closes_its_own_store(tmp_path: Path) -> None:
    """A store that was opened by its URL is closed with the manager."""
    for url in ("memory://", f"sqlite:///{tmp_path / 'a.db'}"):
        manager = SessionManager(url)
        manager.create("a")
        manager.close()
        with pytest.raises(StoreUnavailableError):
            manager.store.load("a")


def test_manager_closing_stops_workers(house: House) -> None:
    """Workers are stopped, each once; their sessions stay as they are and can be recovered."""
    manager = house.open()
    workers = [Worker() for _ in range(3)]
    for number, worker in enumerate(workers):
        manager.create(f"s{number}", start=partial(_given, worker))
    manager.terminate("s0")
    manager.close()
    manager.close()
    assert [worker.stops for worker in workers] == [1, 1, 1]
    other = house.open()
    assert [session.status for session in other.list()] == ["active", "active"]
    assert other.recover().released == ("s1", "s2")


def test_manager_closing_past_a_worker_that_raises(house: House, tmp_path: Path) -> None:
    """A worker that fails, or is interrupted, while it is stopped keeps nothing open."""

    def fail() -> None:
        raise RuntimeError("won't")

    def interrupt() -> None:
        raise KeyboardInterrupt

    manager = house.open()
    good = Worker()
    manager.create("a", start=lambda _: Worker(fail))
    manager.create("b", start=lambda _: good)
    manager.close()
    assert good.stops == 1
    other = SessionManager(f"sqlite:///{tmp_path / 'other.db'}")
    other.create("a", start=lambda _: Worker(interrupt))
    with pytest.raises(KeyboardInterrupt):
        other.close()
    with pytest.raises(StoreUnavailableError):
        other.store.load("a")


def test_manager_closing_during_a_start(house: House) -> None:
    """Closed while a session starts: the worker that comes of it is stopped."""
    manager = house.open()
    worker = Worker()
    running, go_on = threading.Event(), threading.Event()

    def start(_: object) -> Worker:
        running.set()
        await_event(go_on)
        return worker

    creating = begin(manager.create, "a", start=start)
    await_event(running)
    manager.close()
    go_on.set()
    assert isinstance(creating.exception(20), ManagerClosedError)
    assert worker.stops == 1
    assert house.open().recover().ended == ("a",)


def test_manager_closing_while_others_work(house: House) -> None:
    """Verbs that are under way end, or say that it was closed; nothing hangs or is half done."""
    manager = house.open()
    manager.create("a")
    begun = threading.Event()

    def work() -> None:
        while True:
            manager.update("a", metadata=lambda old: {"n": old.get("n", 0) + 1})
            begun.set()

    working = [begin(work) for _ in range(3)]
    await_event(begun)
    manager.close()
    for future in working:
        assert isinstance(future.exception(20), ManagerClosedError | StoreUnavailableError)
    other = house.open()
    assert other.get("a").revision == other.get("a").state.metadata["n"] + 2
    assert other.verify().ok


def test_manager_closing_in_a_callback(house: House) -> None:
    """A callback may close the manager; the verb that told it still gives its answer."""
    manager = house.open()
    manager.subscribe(lambda _: manager.close())
    assert manager.create("a").status == "active"
    with pytest.raises(ManagerClosedError):
        manager.get("a")


def descriptors() -> int:
    """Return how many file descriptors this process has open."""
    gc.collect()
    return len(os.listdir("/dev/fd"))


def test_manager_closing_leaves_nothing_open(tmp_path: Path) -> None:
    """Managers that came and went leave no descriptor, no thread, and no warning."""
    url = f"sqlite:///{tmp_path / 'a.db'}"

    def live() -> None:
        with SessionManager(url) as manager:
            manager.create(start=lambda _: Worker())
            end(*(begin(manager.list) for _ in range(6)))
            manager.sweep()
            manager.verify()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        live()
        before, threads = descriptors(), threading.active_count()
        for _ in range(5):
            live()
        assert descriptors() == before
        assert threading.active_count() <= threads
    assert not list((tmp_path / "a.db.owners").glob("*-*.lock"))


def test_manager_closing_after_a_failed_opening(tmp_path: Path) -> None:
    """A manager that can't be opened leaves nothing behind, and the next one opens."""
    before = descriptors()
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with pytest.raises(LifecycleError):
        SessionManager(url, start_grace_seconds=-1)
    with pytest.raises(ValueError, match="begins with"):
        SessionManager("nowhere")
    other = SESSION_LIFECYCLE.without("touch", name="other")
    with pytest.raises(LifecycleError, match="other rows"):
        SessionManager(MemoryStore(), lifecycle=other)
    assert descriptors() == before
    with SessionManager(url) as manager:
        assert manager.create("a").status == "active"


@pytest.mark.parametrize("way", ["lapse", "terminate"])
def test_manager_closing_waits_for_stops(house: House, way: str) -> None:
    """A worker that another thread is stopping runs until it has; only then is its owner dead."""
    store = house.store()
    manager = house.open(store=store)
    stopping, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        stopping.set()
        await_event(go_on)

    manager.create("a", start=lambda _: Worker(stop))
    owner_id = manager._core.owner_id
    stops = begin(manager._lapsed) if way == "lapse" else begin(manager.terminate, "a", wait=False)
    await_event(stopping)
    closing = begin(manager.close)
    wait_until(lambda: manager._core.closed)
    assert store.is_alive(owner_id)
    assert house.open(store=store).recover().ended == ()
    assert not closing.done()
    go_on.set()
    end(closing, stops)
    assert not store.is_alive(owner_id)


def test_manager_closing_lets_what_was_made_be_told(house: House) -> None:
    """Who has ended a session is told so, though the manager is closed before it goes on."""
    manager = house.open()
    manager.create("a", start=lambda _: Worker(manager._core.close))
    assert manager.terminate("a", wait=False).status == "terminating"


@pytest.mark.parametrize("way", ["create", "restart"])
def test_manager_closing_stops_what_is_being_started(house: House, way: str) -> None:
    """What was started while its manager was closed is stopped: nobody else would."""
    manager, dead = house.open(), house.open()
    worker = Worker()

    def start(_: Session) -> Worker:
        manager.close()
        return worker

    if way == "restart":
        dead.create("a", config={"recovery": "restart"}, start=lambda _: Worker())
        dead.close()
    with pytest.raises(Exception, match="closed"):
        if way == "restart":
            manager.recover(restart=start)
        else:
            manager.create("a", start=start)
    assert worker.stops == 1


def test_manager_closing_is_waited_for_by_a_lapse(house: House) -> None:
    """A lapse is over when nothing runs any longer, though the manager is being closed meanwhile.

    Its owner is taken out of the store then.
    """
    manager = house.open()
    stopping, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        stopping.set()
        await_event(go_on)

    for session_id in ("a", "b"):
        manager.create(session_id, start=lambda _: Worker(stop))
    closing = begin(manager.close)
    await_event(stopping)
    lapsing = begin(manager._lapsed)
    assert not wait(lapsing.done)
    go_on.set()
    end(lapsing, closing)
    assert manager._workers._running == {}


def wait(condition: Callable[[], bool]) -> bool:
    """Give others a moment; returns whether something has come to hold."""
    looks = threading.Event()
    return any(condition() or looks.wait(0.002) for _ in range(50))
