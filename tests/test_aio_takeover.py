"""Nodes on event loops take over what a dead one ran, by themselves, and stop what they lost."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from datetime import datetime

import pytest
from managing import START, minutes, seconds
from supervised import simulated

from session_fsm import FencedError, Session, SessionConfig
from session_fsm.aio import Child, ChildContext, SessionManager
from session_fsm.clock import ManualClock
from session_fsm.stores import MemoryStore
from session_fsm.stores.records import Work

RESTART = SessionConfig(recovery="restart", timeout_minutes=None)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the loop of a test lives by."""
    return ManualClock(START)


class SharedStore(MemoryStore):
    """A store in which an owner lives for half a minute without being heard of."""

    lease_seconds = 30.0
    margin_seconds = 10.0


class Node:
    """A node: a manager on the loop, and what its children were seen to do."""

    def __init__(self, store: MemoryStore, clock: ManualClock, *, restarts: bool = True) -> None:
        self.runs: list[str] = []
        self.seen: list[str] = []
        self.manager = SessionManager(
            store, clock=clock, restart=self.children_of if restarts else None
        )
        self._store = store

    def children_of(self, session: Session) -> list[Child]:
        """Return what runs for a session here."""
        if session.session_id == "bad":
            raise OSError("no such image")
        return [] if session.session_id == "none" else [Child("agent", self.run)]

    async def run(self, context: ChildContext) -> None:
        """Run until asked to stop."""
        self.runs.append(context.session_id)
        self.seen.append(context.session_id)
        try:
            await context.stopping.wait()
        finally:
            self.runs.remove(context.session_id)

    async def create(self, session_id: str, config: SessionConfig = RESTART) -> Session:
        """Create a session that runs here."""
        return await self.manager.create(
            session_id, config=config, children=[Child("agent", self.run)]
        )

    @property
    def owner_id(self) -> str:
        """In whose name it claims now."""
        return self.manager._desk.inner.owner_id

    def die(self) -> None:
        """Be counted as dead, and not know it."""
        self._store.dismiss(self.owner_id)

    async def lapse(self) -> None:
        """Learn that it is counted as dead."""
        self.die()
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def lapse() -> None:
            self.manager._desk.inner._lapsed()
            loop.call_soon_threadsafe(done.set)

        # Not one of the loop's own threads: time passes meanwhile, and what is stopped ends by it.
        threading.Thread(target=lapse).start()
        await done.wait()


@simulated
async def test_aio_takeover_starts_children_anew(clock: ManualClock) -> None:
    """What a dead node ran is started on another one within a third of a lease, by itself."""
    store = SharedStore()
    dead, heir = Node(store, clock), Node(store, clock)
    async with dead.manager, heir.manager:
        for session_id in ("a", "b", "bad", "none"):
            await dead.create(session_id)
        await dead.create("calm", SessionConfig(timeout_minutes=None))
        dead.die()
        await asyncio.sleep(11)
        assert sorted(heir.runs) == ["a", "b"]
        for session_id in ("a", "b"):
            session = await heir.manager.get(session_id)
            assert (session.status, session.worker.alive) == ("active", True)
        failed = await heir.manager.get("bad")
        assert (failed.status, failed.state.error) == ("terminated", "OSError: no such image")
        assert store.work_in("none") == store.work_in("calm") == ()
        assert (await heir.manager.get("calm")).status == "idle"
        assert (await heir.manager.terminate("a")).status == "terminated"
        assert heir.runs == ["b"]


@simulated
async def test_aio_takeover_of_what_is_ended_meanwhile(clock: ManualClock) -> None:
    """Children of a session that is ended before they are there are started, and stopped."""
    store = SharedStore()
    dead, heir, other = Node(store, clock), Node(store, clock), Node(store, clock, restarts=False)
    async with dead.manager, heir.manager, other.manager:
        await dead.create("a")
        children_of = heir.children_of

        def ended_meanwhile(session: Session) -> list[Child]:
            other.manager._desk.inner.terminate("a", wait=False)
            heir.manager._desk.inner.sweep()
            assert set(store.work_in("a")) == {Work("stop"), Work("worker")}
            return children_of(session)

        dead.die()
        report = await heir.manager.recover(restart=ended_meanwhile)
        assert report.restarted == ("a",)
        await asyncio.sleep(2)
        assert (await heir.manager.get("a")).status == "terminated"
        assert (heir.seen, heir.runs) == (["a"], [])
        assert store.work_in("a") == ()


@simulated
async def test_aio_takeover_leaves_to_others_what_they_start(clock: ManualClock) -> None:
    """A node that starts nothing leaves what others are to start, unless it is told to recover."""
    store = SharedStore()
    dead, other = Node(store, clock), Node(store, clock, restarts=False)
    async with dead.manager, other.manager:
        await dead.create("a")
        await dead.create("calm", SessionConfig(timeout_minutes=None))
        dead.die()
        await asyncio.sleep(60)
        assert Work("worker") in store.work_in("a")
        assert (await other.manager.get("calm")).status == "idle"
        assert (await other.manager.recover(restart=other.children_of)).restarted == ("a",)
        assert other.runs == ["a"]
        other.die()
        third = Node(store, clock, restarts=False)
        async with third.manager:
            assert (await third.manager.recover()).released == ("a",)


@simulated
async def test_aio_takeover_waits_for_nobody_else(clock: ManualClock) -> None:
    """Where an owner lives as long as its process, nothing is taken over by itself."""
    store = MemoryStore()
    dead, heir = Node(store, clock), Node(store, clock)
    async with dead.manager, heir.manager:
        await dead.create("a")
        dead.die()
        await asyncio.sleep(3600)
        assert heir.runs == []
        assert (await heir.manager.recover()).restarted == ("a",)
        assert heir.runs == ["a"]


@simulated
async def test_aio_takeover_stops_what_a_lapsed_node_ran(clock: ManualClock) -> None:
    """A node that lapsed stops its children before it goes on, and says nothing of it."""
    store = SharedStore()
    node, heir = Node(store, clock), Node(store, clock)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(node.manager)
        await node.create("a")
        former, before = node.owner_id, store.history("a")
        await node.lapse()
        assert node.runs == []
        assert node.owner_id != former
        assert store.history("a") == before
        await opened.enter_async_context(heir.manager)
        await asyncio.sleep(11)
        assert node.runs + heir.runs == ["a"]
        await node.create("b")
        assert "b" in node.runs
        clock.advance(minutes(1))
        assert (await node.manager.terminate("a", reason="by another node")).status != "active"
        await asyncio.sleep(5)
        assert (await node.manager.get("a")).status == "terminated"


@simulated
async def test_aio_takeover_ignores_failures_of_the_dead(clock: ManualClock) -> None:
    """A child that fails on a node which is counted as dead does not end the session elsewhere."""
    store = SharedStore()
    node, heir = Node(store, clock), Node(store, clock)
    breaks = asyncio.Event()

    async def break_down(context: ChildContext) -> None:
        await breaks.wait()
        raise OSError("the model is gone")

    async with node.manager:
        child = Child("agent", break_down, restart="temporary")
        await node.manager.create("a", config=RESTART, children=[child])
        node.die()
        async with heir.manager:
            await asyncio.sleep(seconds(11).total_seconds())
            assert heir.runs == ["a"]
            breaks.set()
            await asyncio.sleep(60)
            assert heir.runs == ["a"]
            assert (await heir.manager.get("a")).status == "active"


@simulated
async def test_aio_takeover_is_left_by_a_node_that_closes(clock: ManualClock) -> None:
    """A session whose children are being started anew as a node closes lives, for another one."""
    store = SharedStore()
    dead, heir, third = Node(store, clock), Node(store, clock), Node(store, clock)
    begun = asyncio.Event()

    async def starts_for_ever(_: ChildContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    def children_of(_: Session) -> list[Child]:
        return [Child("agent", starts_for_ever, signals_ready=True)]

    heir.manager = SessionManager(store, clock=clock, restart=children_of)
    async with dead.manager:
        await dead.create("a")
        dead.die()
        async with heir.manager:
            await begun.wait()
        stored = store.load("a")
        assert stored is not None
        assert stored.state.status == "active"
        async with third.manager:
            await asyncio.sleep(11)
            assert third.runs == ["a"]


@simulated
async def test_aio_takeover_fences_children_that_go_on(clock: ManualClock) -> None:
    """A child of a lapsed owner writes nothing, though its node has become another one by then."""
    store = SharedStore()
    node, heir = Node(store, clock, restarts=False), Node(store, clock)
    lapsed, told = asyncio.Event(), []

    async def never_ends(context: ChildContext) -> None:
        while not lapsed.is_set():
            try:
                await lapsed.wait()
            except asyncio.CancelledError:
                continue
        writes = (
            context.manager.update("a", metadata={"stale": True}),
            context.manager.table("a", "files").put("k", "stale"),
            context.manager.begin_task("a", "stale"),
            context.manager.terminate("a"),
            asyncio.create_task(context.manager.touch("a")),
        )
        for write in writes:
            try:
                await write
            except FencedError as fault:
                told.append(fault.owner_id == context.owner_id)

    async with node.manager, heir.manager:
        await node.manager.create("a", config=RESTART, children=[Child("agent", never_ends)])
        former = node.owner_id
        await node.lapse()
        assert node.owner_id != former
        await asyncio.sleep(11)
        assert heir.runs == ["a"]
        before = store.history("a")
        lapsed.set()
        await asyncio.sleep(1)
        assert told == [True] * 5
        assert store.history("a") == before
        assert (await node.manager.update("a", metadata={"fresh": 1})).status == "active"


@simulated
async def test_aio_takeover_stops_within_the_margin(clock: ManualClock) -> None:
    """However many children there are, and however long they like, none outlasts the margin."""
    store = SharedStore()
    node = Node(store, clock, restarts=False)
    asked: list[datetime] = []
    ended: list[datetime] = []

    def slow(number: int, seconds_to_stop: float) -> Child:
        async def run(context: ChildContext) -> None:
            try:
                await context.stopping.wait()
                asked.append(clock.now())
                await asyncio.sleep(seconds_to_stop)
            finally:
                ended.append(clock.now())

        return Child(f"child {number}", run, stop_seconds=100)

    async with node.manager:
        children = [slow(number, 4.0) for number in range(8)] + [slow(8, 1000.0)]
        await node.manager.create("a", config=RESTART, children=children)
        await node.lapse()
        assert len(ended) == 9
        assert max(asked) == min(asked)
        assert sorted(each - asked[0] for each in ended)[-2] < seconds(4.1)
        assert max(ended) - asked[0] < seconds(store.margin_seconds)


@simulated
async def test_aio_takeover_leaves_each_its_time_to_stop(clock: ManualClock) -> None:
    """When a node lapses, a child that needs a while is not cut short by others that need none."""
    store = SharedStore()
    node = Node(store, clock)
    ended: list[str] = []

    async def tidy(context: ChildContext) -> None:
        await context.stopping.wait()
        await asyncio.sleep(3)
        ended.append(context.session_id)

    async with node.manager:
        for session_id in ("a", "b", "c"):
            await node.create(session_id)
        await node.manager.create("tidy", config=RESTART, children=[Child("tidy", tidy)])
        await node.lapse()
        assert (ended, node.runs) == (["tidy"], [])
