"""Feeds on a loop: what comes is told in order, whoever did it, and a reader holds up nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from managing import HookedMemory, House, await_event, once, seconds
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from supervised import in_real_time, opened, simulated, waits

import session_fsm
from session_fsm import (
    SESSION_LIFECYCLE,
    FeedGapError,
    LifecycleError,
    ManagerClosedError,
    PositionedEvent,
)
from session_fsm.aio import Child, SessionManager
from session_fsm.clock import ManualClock
from session_fsm.observing import instrument, log_events
from session_fsm.stores import MemoryStore, SessionStore

pytest_plugins = ("manager_fixtures",)


@pytest.fixture
def url(house: House) -> str:
    """The URL of a store, once of each kind."""
    return house.url


def shared(url: str) -> str | SessionStore:
    """Return what several managers open the same store by."""
    return MemoryStore(SESSION_LIFECYCLE) if url.startswith("memory") else url


async def told(
    events: AsyncIterator[PositionedEvent], number: int = 1_000_000
) -> list[tuple[str, int]]:
    """Return session and revision of the next events."""
    found: list[tuple[str, int]] = []
    while len(found) < number:
        try:
            event = await anext(events)
        except StopAsyncIteration:
            break
        found.append((event.session_id, event.revision))
    return found


async def _begun(
    events: AsyncIterator[PositionedEvent], number: int, manager: SessionManager
) -> asyncio.Task[list[tuple[str, int]]]:
    """Return a task that reads events and waits for the first one."""
    following = manager._desk.following
    waiting = len(following._polls)
    task = asyncio.create_task(told(events, number))
    while len(following._polls) == waiting:
        await asyncio.sleep(0.01)
    return task


@simulated
async def test_aio_feeds_tell_what_the_manager_commits(clock: ManualClock, url: str) -> None:
    """Who waits is woken by each commit, at once; each session's feed has its own events only."""
    async with opened(clock, store=url) as manager:
        await manager.create("a")
        everything = manager.events(poll_seconds=1000)
        task = await _begun(everything, 3, manager)
        one = await _begun(manager.events("b", poll_seconds=1000), 2, manager)
        since = clock.now()
        await manager.touch("a")
        await manager.create("b")
        assert await task == [("a", 3), ("b", 1), ("b", 2)]
        assert await one == [("b", 1), ("b", 2)]
        assert clock.now() - since < seconds(1)
        assert not manager._desk.inner._core.bell.any  # nobody waits any longer
        page = await manager.read_events()
        assert [each.event.kind for each in page.events] == [
            "created",
            "moved",
            "changed",
            "created",
            "moved",
        ]
        assert page.position == await manager.position() == page.events[-1].position


@simulated
async def test_aio_feeds_tell_what_others_commit(clock: ManualClock, url: str) -> None:
    """What another manager on the same store did is found at the next look."""
    store = shared(url)
    async with opened(clock, store=store) as manager:
        with session_fsm.SessionManager(store, clock=clock) as other:
            task = await _begun(manager.events(poll_seconds=5), 2, manager)
            other.create("a")
            assert await task == [("a", 1), ("a", 2)]


@simulated
async def test_aio_feeds_go_on_where_a_reader_was(clock: ManualClock, url: str) -> None:
    """Whoever goes on from the last position, after a restart too, sees each event once."""
    seen: list[tuple[str, int]] = []
    after = 0
    store = shared(url)
    for number in range(4):
        async with opened(clock, store=store) as manager:
            await manager.create(f"s{number}")
            await manager.touch(f"s{number}")
            async for event in manager.events(after=after, timeout_seconds=0):
                seen.append((event.session_id, event.revision))
                after = event.position
                if len(seen) % 2:
                    break  # and the rest is told next time
    async with opened(clock, store=store) as manager:
        seen += await told(manager.events(after=after, timeout_seconds=0))
        await manager.terminate("s0")
        assert [each async for each in manager.events("s0", timeout_seconds=0)] == []
    assert seen[:12] == [(f"s{number}", n) for number in range(4) for n in (1, 2, 3)]
    assert len(set(seen)) == len(seen)


@simulated
async def test_aio_feeds_end_in_time_with_the_manager_and_with_the_reader(
    clock: ManualClock, url: str
) -> None:
    """A feed ends when nothing comes in time, when the manager is closed, and by cancellation."""
    async with opened(clock, store=url) as manager:
        since = clock.now()
        assert await told(manager.events(timeout_seconds=7, poll_seconds=2)) == []
        assert clock.now() - since == seconds(7)
        cancelled = await _begun(manager.events(), 1, manager)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert cancelled.cancelled()
        assert not manager._desk.inner._core.bell.any
        waiting = await _begun(manager.events(poll_seconds=100_000), 1, manager)
        since = clock.now()
    assert await waiting == []
    assert clock.now() - since < seconds(60)
    with pytest.raises(ManagerClosedError):
        manager.events()


@simulated
async def test_aio_feeds_tell_what_was_removed_unread(clock: ManualClock, url: str) -> None:
    """Who fell behind what is kept is told so, with the position from which all is kept."""
    async with opened(clock, store=url) as manager:
        await manager.create("a")
        await manager.touch("a")
        feed = manager.events(after=0)
        assert await told(feed, 1) == [("a", 1)]
        behind = await manager.position()
        await manager.terminate("a")
        await asyncio.sleep(1)
        await manager.purge(ended_before=clock.now())
        with pytest.raises(FeedGapError) as caught:
            await told(manager.events(after=1))
        assert caught.value.kept_from > behind
        # What it had in hand it still tells, and then that there is a gap.
        with pytest.raises(FeedGapError):
            await told(feed)
        found = [each async for each in manager.events(after=-1, timeout_seconds=0)]
        assert [each.event.kind for each in found] == ["purged"]


@simulated
async def test_aio_feeds_refuse_what_is_no_position_at_once(clock: ManualClock) -> None:
    """Arguments that are none are refused by the call, before anything is awaited."""
    async with opened(clock) as manager:
        for arguments in (
            {"poll_seconds": 0},
            {"poll_seconds": float("nan")},
            {"timeout_seconds": -1},
            {"after": 1 << 70},
        ):
            with pytest.raises(ValueError, match=next(iter(arguments))):
                manager.events(**arguments)
        with pytest.raises(TypeError):
            manager.events(after="1")


@simulated
async def test_aio_feeds_are_read_slowly_by_nobodys_cost(clock: ManualClock, url: str) -> None:
    """A reader that stands still holds up no verb, and reads on without a gap."""
    async with opened(clock, store=url) as manager:
        await manager.create("a")
        feed = manager.events(after=0)
        assert await told(feed, 1) == [("a", 1)]
        since = clock.now()
        for _ in range(300):
            await manager.fire("a", "touch")
        assert clock.now() - since < seconds(1)
        assert await told(feed, 301) == [("a", n) for n in range(2, 303)]


FOLLOWERS = 200


@simulated
async def test_aio_feeds_of_many_cost_whoever_commits_nothing(clock: ManualClock) -> None:
    """A commit wakes whoever follows its session, or all; while nothing happens nobody reads."""
    store = HookedMemory(SESSION_LIFECYCLE)
    async with opened(clock, store=store) as manager:
        with session_fsm.SessionManager(store, clock=clock) as other:
            ids = [f"s{number}" for number in range(FOLLOWERS)]
            for session_id in ids:
                await manager.create(session_id, config={"timeout_minutes": None})
            tasks = {each: await _begun(manager.events(each), 1, manager) for each in ids}
            everything = await _begun(manager.events(), 3, manager)

            async def reads(seconds: float) -> int:
                before = store.calls["feed"]
                await asyncio.sleep(seconds)
                return store.calls["feed"] - before

            await reads(1)
            assert await reads(10) in (50, 51)  # five a second, however many follow
            await manager.touch("s0")
            other.touch("s1")
            await manager.fire("s2", "touch")
            # Two or three looks; a few reads of those four that were woken, or none of theirs yet.
            assert await reads(0.5) < 20
            assert await tasks["s0"] == [("s0", 3)]
            assert await tasks["s1"] == [("s1", 3)]
            assert await everything == [("s0", 3), ("s1", 3), ("s2", 3)]
            assert await tasks["s2"] == [("s2", 3)]
            assert sum(task.done() for task in tasks.values()) == 3
            # What others did to more sessions than are looked at wakes everybody, and nobody misses
            # anything.
            for session_id in ids[3:] * 2:
                other.touch(session_id)
            for session_id in ids[3:]:
                assert await tasks[session_id] == [(session_id, 3)]
            assert store.calls["feed"] - len(ids) < 8 * FOLLOWERS


@in_real_time
async def test_aio_feeds_never_keep_a_verb_waiting() -> None:
    """While all threads for feeds are held up in the store, verbs are made as ever."""
    store, go_on = HookedMemory(SESSION_LIFECYCLE), threading.Event()
    async with SessionManager(store, max_threads=1) as manager:
        await manager.create("a")
        store.before["feed"] = lambda *_: await_event(go_on)
        feeds = [asyncio.create_task(told(manager.events(after=0), 2)) for _ in range(10)]
        await asyncio.sleep(0)
        assert (await manager.touch("a")).revision == 3
        assert not any(feed.done() for feed in feeds)
        go_on.set()
        for feed in feeds:
            assert await feed == [("a", 1), ("a", 2)]


@simulated
async def test_aio_feeds_are_told_of_others_though_all_tasks_are_cancelled(
    clock: ManualClock,
) -> None:
    """Whoever cancels every task there is has not ended the looks for what others did."""
    store, loop = HookedMemory(SESSION_LIFECYCLE), asyncio.get_running_loop()
    done: list[bool] = []
    async with opened(clock, store=store) as manager:
        cancelled = threading.Event()

        def cancel() -> None:
            done.extend(look.cancel() for look in manager._desk.following._looks._tasks)
            cancelled.set()

        def in_a_look(*_: object) -> None:
            loop.call_soon_threadsafe(cancel)
            await_event(cancelled)

        with session_fsm.SessionManager(store, clock=clock) as other:
            task = await _begun(manager.events(), 1, manager)
            await asyncio.sleep(1)
            store.before["feed"] = once(in_a_look)
            await asyncio.sleep(1)
            assert done == [True]
            other.create("a")
            assert await task == [("a", 1)]


# --- hooks and instruments ------------------------------------------------------------------


@simulated
async def test_aio_hooks_are_called_on_the_loop(
    clock: ManualClock, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Hooks by status are called after the commit; one that fails is logged and harms nobody."""
    loop = asyncio.get_running_loop()
    heard: list[tuple[object, int]] = []

    def fails(_: object) -> None:
        raise RuntimeError("a hook that fails")

    async def awaited(_: object) -> None: ...

    async with opened(clock, store=url) as manager:
        manager.on_enter("idle", fails)
        end = manager.on_enter("idle", lambda event: heard.append(("enter", event.revision)))
        manager.on_leave(
            "idle", lambda event: heard.append((asyncio.get_running_loop() is loop, event.revision))
        )
        await manager.create("a", children=[Child("c", waits)])
        assert (await manager.fire("a", "go_idle")).status == "idle"
        await manager.fire("a", "resume")
        end()
        await manager.fire("a", "go_idle")
        assert heard == [("enter", 3), (True, 4)]
        assert "a hook that fails" in caplog.text
        with pytest.raises(LifecycleError):
            manager.on_enter("nowhere", fails)
        for refused in (awaited, "no hook"):
            with pytest.raises(TypeError):
                manager.on_leave("idle", refused)


@simulated
async def test_aio_managers_are_instrumented_and_logged(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Spans, metrics and log lines come of a manager on a loop as of one of threads."""
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    caplog.set_level("DEBUG", "session_fsm.events")
    async with opened(clock) as manager:
        instrument(manager, MeterProvider([reader]), tracers)
        log_events(manager)
        with tracers.get_tracer("app").start_as_current_span("request") as request:
            await manager.create("a")
            await manager.fire("a", "go_idle")
        data = reader.get_metrics_data()
        assert data is not None
        points: dict[str, list[Any]] = {
            metric.name: list(metric.data.data_points)
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
        }
        counts = {
            p.attributes["session_fsm.status"]: p.value for p in points["session_fsm.sessions"]
        }
        assert counts == {status: int(status == "idle") for status in manager.lifecycle.statuses}
        assert sum(p.value for p in points["session_fsm.moves"]) == 2
    spans = exporter.get_finished_spans()
    assert {"create", "go_idle"} <= {span.name for span in spans}
    # A call that a thread makes belongs to the span of whoever awaits it.
    [moved] = [span for span in spans if span.name == "go_idle"]
    assert moved.parent is not None
    assert moved.parent.span_id == request.get_span_context().span_id
    assert "session 'a' moved by 'go_idle' from active to idle, revision 3" in caplog.messages
