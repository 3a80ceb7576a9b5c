"""What many tasks ask for at the same time is made together, and holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from managing import HookedMemory, HookedSqlite, HookedStore, House, await_event, once
from supervised import Watch, in_real_time, opened, simulated

from session_fsm import (
    SESSION_LIFECYCLE,
    CorruptRecordError,
    InvalidTransitionError,
    ManagerClosedError,
    Put,
    RevisionConflictError,
    Row,
    Session,
    SessionEvent,
    guard,
    together,
)
from session_fsm.aio import SessionManager, moving
from session_fsm.aio.calls import GONE_THROUGH, NOT_BEGUN, Calls
from session_fsm.aio.steps import SteppedManager
from session_fsm.clock import ManualClock
from session_fsm.decisions import Fire
from session_fsm.guards import Attempt

pytest_plugins = ("manager_fixtures",)

NAMES = tuple(f"s{number:02}" for number in range(40))


@pytest.fixture(autouse=True)
def _in_no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing count as slow because other tests keep the machine busy."""
    monkeypatch.setattr(moving, "PATIENCE_SECONDS", 20.0)
    monkeypatch.setattr(together, "SLOW_SECONDS", 20.0)


@pytest.fixture
def store(house: House) -> HookedStore:
    """A store with hooks, once of each kind."""
    return house.store()


@asynccontextmanager
async def with_sessions(store: HookedStore, **options: Any) -> AsyncIterator[SessionManager]:
    """Open a manager, and create the sessions."""
    async with SessionManager(store, sweep_poll_seconds=600.0, **options) as manager:
        for name in NAMES:
            await manager.create(name)
        await quick_once(manager)
        store.calls.clear()
        yield manager


async def quick_once(manager: SessionManager) -> None:
    """Have every kind of change be made once by itself, so that it is known to be quick."""
    for verb in (
        manager.create("quick", config={"max_conversations": 10_000}),
        manager.touch("quick"),
        manager.fire("quick", "touch"),
        manager.transition("quick", "idle"),
        manager.fire("quick", "resume"),
        manager.fire("quick", "go_idle"),
        manager.begin_task("quick", "t"),
        manager.end_task("quick", "t"),
        manager.fire("quick", "resume"),
        manager.start_conversation("quick"),
        manager.update("quick", metadata={}),
        manager.fail("quick", "enough"),
    ):
        await verb


def pondering() -> tuple[HookedMemory, threading.Event, threading.Event]:
    """Return a store with a trigger `ponder`, what its guard sets, and what it awaits."""
    begun, go_on = threading.Event(), threading.Event()

    @guard("patient")
    def patient(_: Attempt) -> bool:
        begun.set()
        await_event(go_on)
        return True

    row = Row("ponder", "active", None, guards=patient, why="it takes long at times")
    lifecycle = SESSION_LIFECYCLE.extend(name="pondering", rows=(row,))
    return HookedMemory(lifecycle), begun, go_on


class Stuck:
    """Holds up the first of some calls of a store, on its thread."""

    def __init__(self, store: HookedStore, method: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.begun = asyncio.Event()
        self.go_on = threading.Event()
        store.before[method] = once(self._wait)

    def _wait(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self.begun.set)
        await_event(self.go_on)


@in_real_time
async def test_aio_moving_makes_together_what_is_asked_for_together(store: HookedStore) -> None:
    """Forty tasks that ask in one turn of the loop are one call of the store, and one thread."""
    async with with_sessions(store) as manager:
        threads = set()
        store.before["commit_all"] = lambda *_: threads.add(threading.get_ident())
        sessions = await asyncio.gather(*(manager.fire(name, "go_idle") for name in NAMES))
        assert [session.session_id for session in sessions] == list(NAMES)
        assert {(str(session.status), session.revision) for session in sessions} == {("idle", 3)}
        assert store.calls["commit_all"] == 1
        assert len(threads) == 1
        assert threads != {threading.get_ident()}
        assert store.calls["load"] == 0


@in_real_time
async def test_aio_moving_makes_each_verb(store: HookedStore) -> None:
    """Every verb that changes a session may be made together with others, with its own outcome."""
    async with with_sessions(store) as manager:
        came = await asyncio.gather(
            manager.transition("s00", "idle", reason="pause"),
            manager.fire("s01", "terminate", error="boom"),
            manager.update("s02", metadata={"k": [1]}, expected_revision=2),
            manager.begin_task("s03", "t", timeout_seconds=60),
            manager.start_conversation("s04"),
            manager.touch("s05"),
            manager.fail("s06", ValueError("bad")),
            manager.fire("s07", "resume"),
            manager.update("s08", metadata={}, expected_revision=1),
            manager.fire("s09", "touch", writes=[Put("notes", "k", 1)]),
            manager.update("s10", metadata=lambda now: {**now, "n": 1}),
            return_exceptions=True,
        )
        ended = await manager.end_task("s03", "t")
        assert store.calls["commit_all"] == 2
        sessions = [each for each in came if isinstance(each, Session)]
        told = {each.session_id: each for each in sessions}
        assert (told["s00"].status, (await manager.history("s00"))[-1].reason) == ("idle", "pause")
        assert (told["s01"].status, told["s01"].state.error) == ("terminated", "boom")
        assert told["s02"].state.metadata == {"k": [1]}
        assert told["s03"].state.active_tasks == ("t",)
        assert told["s04"].state.conversation_count == 1
        assert told["s05"].revision == 3
        assert (told["s06"].status, told["s06"].state.error) == ("terminated", "ValueError: bad")
        assert isinstance(came[7], InvalidTransitionError)
        assert isinstance(came[8], RevisionConflictError)
        assert (came[8].expected, came[8].found) == (1, 2)
        assert await manager.table("s09", "notes").get("k") == 1
        assert told["s10"].state.metadata == {"n": 1}
        assert ended.status == "idle"
        assert (await manager.verify()).problems == ()


@in_real_time
async def test_aio_moving_what_is_asked_for_meanwhile_is_made_next(store: HookedStore) -> None:
    """While some are made, others gather, and are made at one go as soon as that is done."""
    async with with_sessions(store) as manager:
        stuck = Stuck(store, "commit_all")
        first = asyncio.ensure_future(manager.touch("s00"))
        await stuck.begun.wait()
        rest = [asyncio.ensure_future(manager.touch(name)) for name in NAMES[1:]]
        await asyncio.sleep(0)
        assert store.calls["commit_all"] == 1
        stuck.go_on.set()
        await asyncio.gather(first, *rest)
        assert store.calls["commit_all"] == 2


@in_real_time
async def test_aio_moving_goes_on_without_who_takes_long(
    store: HookedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for those who take too long is made by another thread."""
    monkeypatch.setattr(moving, "PATIENCE_SECONDS", 0.01)
    async with with_sessions(store) as manager:
        stuck = Stuck(store, "commit_all")
        first = asyncio.ensure_future(manager.touch("s00"))
        await stuck.begun.wait()
        assert (await manager.touch("s01")).revision == 3
        assert (await manager.touch("s02")).revision == 3
        assert not first.done()
        stuck.go_on.set()
        assert (await first).revision == 3


@in_real_time
async def test_aio_moving_is_not_held_up_by_functions(store: HookedStore) -> None:
    """A change by a function of the caller, which may take long, is waited for by no other one."""
    async with with_sessions(store) as manager:
        loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def slowly(now: Any) -> Any:
            loop.call_soon_threadsafe(begun.set)
            await_event(go_on)
            return {**now, "slow": True}

        slow = asyncio.ensure_future(manager.update("s00", metadata=slowly))
        await begun.wait()
        assert store.calls["commit_all"] == 0
        assert (await manager.touch("s01")).revision == 3
        go_on.set()
        assert (await slow).state.metadata == {"slow": True}
        assert store.calls["commit_all"] == 1


@in_real_time
async def test_aio_moving_is_not_held_up_by_guards() -> None:
    """A guard that takes long holds its own session, and none that was asked for beside it."""
    store, begun, go_on = pondering()
    async with SessionManager(store, lifecycle=store.lifecycle) as manager:
        for name in NAMES[:3]:
            await manager.create(name)
        await manager.touch("s00")
        moves = [
            asyncio.ensure_future(verb)
            for verb in (manager.touch("s01"), manager.fire("s00", "ponder"), manager.touch("s02"))
        ]
        assert await asyncio.to_thread(begun.wait, 20.0)
        assert (await moves[0]).revision == (await moves[2]).revision == 3
        assert (await manager.begin_task("s01", "t")).revision == 4
        assert not moves[1].done()
        go_on.set()
        assert (await moves[1]).revision == 4


@in_real_time
async def test_aio_moving_withdraws_what_is_not_decided_on_yet() -> None:
    """Who is cancelled while another one of the same go is decided on has changed nothing."""
    store, begun, go_on = pondering()
    go_on.set()
    async with SessionManager(store, lifecycle=store.lifecycle) as manager:
        for name in NAMES[:3]:
            await manager.create(name)
        await manager.touch("s00")
        await manager.fire("s00", "ponder")  # quickly, this time
        begun.clear()
        go_on.clear()
        slow = asyncio.ensure_future(manager.fire("s00", "ponder"))
        touch = asyncio.ensure_future(manager.touch("s01"))
        assert await asyncio.to_thread(begun.wait, 20.0)
        touch.cancel()
        with pytest.raises(asyncio.CancelledError) as withdrawn:
            await touch
        assert withdrawn.value.__notes__ == [NOT_BEGUN]
        assert not slow.done()
        go_on.set()
        assert (await slow).revision == 5
        assert (await manager.get("s01")).revision == 2


@pytest.mark.parametrize("is_made", [False, True])
@in_real_time
async def test_aio_moving_tells_of_threads_that_can_not_be_had(
    store: HookedStore, *, is_made: bool
) -> None:
    """Where no thread can be had, who asks is told so, unless another one has made it already."""
    async with with_sessions(store) as manager:
        calls, taken = manager._desk.calls, []
        begun, go_on = threading.Event(), threading.Event()
        begin = calls.begin

        def no_thread(work: Callable[[], object]) -> None:
            # As an executor that has taken it, and can't start one more thread.
            calls.begin = begin  # type: ignore[method-assign]
            taken.append(work)
            if is_made:
                go_on.set()
                await_event(begun)
            raise RuntimeError("can't start new thread")

        def make() -> None:
            await_event(go_on)
            store.before["commit_all"] = once(lambda *_: begun.set())
            taken[0]()

        calls.begin = no_thread  # type: ignore[method-assign, assignment]
        late = asyncio.ensure_future(asyncio.to_thread(make))
        came = await asyncio.gather(
            *(manager.touch(name) for name in NAMES[:3]), return_exceptions=True
        )
        go_on.set()
        await late
        if is_made:
            assert [each.revision for each in came if isinstance(each, Session)] == [3] * 3
        else:
            assert [str(each) for each in came] == ["can't start new thread"] * 3
            assert len({id(each) for each in came}) == 3
        assert (await manager.touch("s00")).revision == 3 + is_made


@in_real_time
async def test_aio_moving_tells_a_task_of_a_subscriber_in_time(store: HookedStore) -> None:
    """A task that a subscriber has begun hears of what it changes before its verb returns."""
    async with with_sessions(store) as manager:
        heard: list[str] = []
        done: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        tasks: list[asyncio.Task[None]] = []

        async def go_on() -> None:
            slots = manager._desk.inner._core.slots
            with slots.hold_back(["s01"]):  # as a batch does that is not told of yet
                touched = asyncio.ensure_future(manager.touch("s01"))
                await asyncio.wait((touched,), timeout=0.05)
                assert not touched.done()
            await touched
            done.set_result(list(heard))

        def hear(event: SessionEvent) -> None:
            heard.append(event.session_id)
            if event.session_id == "s00":
                tasks.append(asyncio.get_running_loop().create_task(go_on()))

        manager.subscribe(hear)
        await manager.touch("s00")
        assert await done == ["s00", "s01"]


@in_real_time
async def test_aio_moving_is_bounded(store: HookedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are made at one go than may be; the rest is the next one."""
    monkeypatch.setattr(moving, "MOST_TOGETHER", 16)
    sizes: list[int] = []
    async with with_sessions(store) as manager:
        store.before["commit_all"] = lambda commits: sizes.append(len(commits))
        await asyncio.gather(*(manager.touch(name) for name in NAMES))
    assert sizes == [16, 16, 8]


@in_real_time
async def test_aio_moving_withdraws_what_waits(store: HookedStore) -> None:
    """Who is cancelled while others are made is left out; who is being made is waited for."""
    async with with_sessions(store) as manager:
        stuck = Stuck(store, "commit_all")
        first = asyncio.ensure_future(manager.touch("s00"))
        await stuck.begun.wait()
        rest = [asyncio.ensure_future(manager.touch(name)) for name in NAMES[1:4]]
        await asyncio.sleep(0)
        rest[1].cancel()
        first.cancel()
        with pytest.raises(asyncio.CancelledError) as withdrawn:
            await rest[1]
        assert withdrawn.value.__notes__ == [NOT_BEGUN]
        for _ in range(3):
            await asyncio.sleep(0)
            first.cancel()
        assert not first.done()
        stuck.go_on.set()
        with pytest.raises(asyncio.CancelledError) as gone_through:
            await first
        assert gone_through.value.__notes__ == [GONE_THROUGH]
        assert [(await each).revision for each in (rest[0], rest[2])] == [3, 3]
        assert [(await manager.get(name)).revision for name in NAMES[:4]] == [3, 3, 2, 3]


@in_real_time
async def test_aio_moving_withdraws_what_no_thread_has_begun(store: HookedStore) -> None:
    """Who is cancelled before any thread was free has changed nothing, and is told at once."""
    async with with_sessions(store, max_threads=1) as manager:
        stuck = Stuck(store, "load")
        busy = asyncio.ensure_future(manager.get("s09"))
        await stuck.begun.wait()
        moves = [asyncio.ensure_future(manager.touch(name)) for name in NAMES[:3]]
        for _ in range(5):
            await asyncio.sleep(0)
        moves[1].cancel()
        with pytest.raises(asyncio.CancelledError) as withdrawn:
            await moves[1]
        assert withdrawn.value.__notes__ == [NOT_BEGUN]
        assert not busy.done()
        stuck.go_on.set()
        assert [(await each).revision for each in (moves[0], moves[2])] == [3, 3]
        assert (await manager.get("s01")).revision == 2


@in_real_time
async def test_aio_moving_is_waited_for_by_the_end(store: HookedStore) -> None:
    """A manager that is closed makes what was asked for before, and nothing afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        manager = await stack.enter_async_context(with_sessions(store))
        stuck = Stuck(store, "commit_all")
        first = asyncio.ensure_future(manager.touch("s00"))
        await stuck.begun.wait()
        second = asyncio.ensure_future(manager.touch("s01"))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(manager.close())
        done, _ = await asyncio.wait((closing,), timeout=0.05)
        assert not done
        stuck.go_on.set()
        assert [session.revision for session in await asyncio.gather(first, second)] == [3, 3]
        await closing
        with pytest.raises(ManagerClosedError):
            await manager.touch("s02")


@in_real_time
async def test_aio_moving_tells_all_of_a_fault(
    store: HookedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong with many, each hears of it, and the next are made."""

    def fail(*_: object) -> None:
        raise CorruptRecordError(record="r", problems=("p",))

    async with with_sessions(store) as manager:
        inner = manager._desk.inner
        with monkeypatch.context() as patching:
            patching.setattr(type(inner), "change_together", lambda *_: 1 / 0)
            came = await asyncio.gather(
                *(manager.touch(name) for name in NAMES[:3]), return_exceptions=True
            )
        assert [type(each) for each in came] == [ZeroDivisionError] * 3
        assert "of 3 changes not all have an answer" in caplog.text
        store.before["commit_all"] = once(fail)
        came = await asyncio.gather(
            *(manager.touch(name) for name in NAMES), return_exceptions=True
        )
        assert Counter(type(each) for each in came) == {CorruptRecordError: len(NAMES)}
        assert (await manager.touch("s00")).revision == 3


@in_real_time
async def test_aio_moving_makes_nothing_while_the_end_is_written(store: HookedStore) -> None:
    """Who asks when all calls are made, and the owner is being dismissed, is told of the end."""
    async with with_sessions(store) as manager:
        stuck = Stuck(store, "dismiss")
        closing = asyncio.ensure_future(manager.close())
        await stuck.begun.wait()
        with pytest.raises(ManagerClosedError):
            await manager.touch("s00")
        stuck.go_on.set()
        await closing


@in_real_time
async def test_aio_moving_makes_nothing_when_all_calls_are_made() -> None:
    """Who asks when there are no threads any longer is told that the manager is closed."""
    inner, calls = SteppedManager("memory://"), Calls(1)
    inner.create("s")
    change = moving.Moving(inner, calls, lambda _: None)
    assert (await change("s", Fire("touch"))).revision == 3
    assert inner.is_at_hand("s", Fire("touch"))
    await calls.close()
    with pytest.raises(ManagerClosedError):
        await change("s", Fire("touch"))
    inner.close()


@pytest.mark.parametrize("verb", ["update", "update by a function", "begin_task"])
@simulated
async def test_aio_moving_has_the_sweeper_wake(clock: ManualClock, verb: str) -> None:
    """A deadline that comes with changes made together is kept, though the sweeper looks seldom."""
    async with opened(clock, sweep_poll_seconds=86_400.0) as manager:
        watch = Watch(manager)
        for name in NAMES[:3]:
            await manager.create(name)
        await quick_once(manager)
        assert watch.triggers("s01") == [None, "activate"]
        if verb == "update":
            work = (manager.update(name, config={"timeout_minutes": 1}) for name in NAMES[:3])
        elif verb == "update by a function":
            work = (
                manager.update(name, config=lambda _: {"timeout_minutes": 1}) for name in NAMES[:3]
            )
        else:
            work = (manager.begin_task(name, "t", timeout_seconds=60) for name in NAMES[:3])
        await asyncio.gather(*work)
        begun = clock.now()
        await watch.until(lambda: len(watch.triggers("s01")) > 3)
        assert clock.now() - begun <= timedelta(seconds=61)


@in_real_time
async def test_aio_moving_of_two_managers_loses_nothing(tmp_path: Path) -> None:
    """Two managers on one file count in the same sessions; each count that was told is there."""
    path = tmp_path / "sessions.db"
    one = HookedSqlite(path, SESSION_LIFECYCLE)
    other = HookedSqlite(path, SESSION_LIFECYCLE)
    try:
        async with SessionManager(one) as first, SessionManager(other) as second:
            for name in NAMES[:6]:
                await first.create(name, config={"max_conversations": 10_000})

            async def count(manager: SessionManager, name: str) -> None:
                for _ in range(15):
                    await manager.start_conversation(name)

            await asyncio.gather(
                *(count(manager, name) for name in NAMES[:6] for manager in (first, second) * 2)
            )
            for name in NAMES[:6]:
                session = await first.get(name)
                assert session.state.conversation_count == 60
                assert session.revision == 62
            assert (await first.verify()).problems == ()
    finally:
        one.close()
        other.close()


@in_real_time
async def test_aio_moving_leaves_other_stores_their_threads() -> None:
    """A store that gains nothing by many at one go has its commits by as many threads as before."""
    store = HookedMemory(SESSION_LIFECYCLE)
    store.commits_together = False
    async with with_sessions(store) as manager:
        stuck = Stuck(store, "commit")
        first = asyncio.ensure_future(manager.touch("s00"))
        await stuck.begun.wait()
        assert (await manager.touch("s01")).revision == 3
        stuck.go_on.set()
        await first
        assert store.calls["commit_all"] == 0
