"""Whoever is cancelled, at whichever wait of whichever verb: the store is as before or as after."""

from __future__ import annotations

import asyncio
import itertools
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest
from managing import START, HookedMemory, await_event, once
from supervised import in_real_time, opened, simulated, waits

from session_fsm import SESSION_LIFECYCLE, Put, Session, SessionManager, aio
from session_fsm.aio import Child
from session_fsm.aio.calls import FAILED, GONE_THROUGH, NOT_BEGUN, Calls
from session_fsm.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """The clock that the loop lives by."""
    return ManualClock(START)


@types.coroutine
def cancelled_at(work: Coroutine[Any, Any, object], number: int) -> Generator[Any, Any, bool]:
    """Await something, and cancel this task when it waits for the number-th time, from 0 on.

    Returns:
        Whether it ever waited so often.

    Raises:
        asyncio.CancelledError: It was cancelled, and has let that through.
    """
    task = asyncio.current_task()
    assert task is not None
    send: Callable[[], Any] = lambda: work.send(None)  # noqa: E731 - what is done next
    for count in itertools.count():
        try:
            future = send()
        except StopIteration:
            return count > number
        if count == number:
            task.cancel()
        try:
            yield future
        except BaseException as fault:  # noqa: BLE001 - handed on to what is awaited
            send = _thrower(work, fault)
        else:
            send = lambda: work.send(None)  # noqa: E731 - what is done next
    raise AssertionError


def _thrower(work: Coroutine[Any, Any, object], fault: BaseException) -> Callable[[], Any]:
    return lambda: work.throw(fault)


async def _task(manager: aio.SessionManager) -> None:
    async with manager.task("s", "work"):
        await asyncio.sleep(1)


async def _start(_: Session) -> object:
    await asyncio.sleep(1)
    return object()


async def _first(manager: aio.SessionManager) -> None:
    assert [each.revision async for each in manager.events("s", after=0, timeout_seconds=0)]


async def _next(manager: aio.SessionManager) -> None:
    async for _ in manager.events("s", timeout_seconds=2, poll_seconds=1):
        raise AssertionError


def _two(manager: SessionManager) -> None:
    manager.create("b1")
    manager.create("b2")


Verb = Callable[[aio.SessionManager], Awaitable[object]]

VERBS: dict[str, Verb] = {
    "create": lambda manager: manager.create("new"),
    "create with start": lambda manager: manager.create("new", start=_start),
    "create with children": lambda manager: manager.create(
        "new", children=[Child("a", waits), Child("b", waits)]
    ),
    "supervise": lambda manager: manager.supervise("s", [Child("a", waits), Child("b", waits)]),
    "get": lambda manager: manager.get("s"),
    "find": lambda manager: manager.find("s"),
    "list": lambda manager: manager.list(),
    "counts": lambda manager: manager.counts(),
    "traffic": lambda manager: manager.traffic(),
    "transition": lambda manager: manager.transition("s", "idle"),
    "fire": lambda manager: manager.fire("s", "touch"),
    "explain": lambda manager: manager.explain("s", "touch"),
    "permitted": lambda manager: manager.permitted("s"),
    "update": lambda manager: manager.update("s", metadata={"n": 2}),
    "begin_task": lambda manager: manager.begin_task("s", "t"),
    "end_task": lambda manager: manager.end_task("busy", "t"),
    "task": _task,
    "start_conversation": lambda manager: manager.start_conversation("s"),
    "touch": lambda manager: manager.touch("s"),
    "terminate": lambda manager: manager.terminate("s"),
    "terminate supervised": lambda manager: manager.terminate("supervised"),
    "terminate busy": lambda manager: manager.terminate("busy"),
    "fail": lambda manager: manager.fail("supervised", "boom"),
    "sweep": lambda manager: manager.sweep(),
    "next_deadline": lambda manager: manager.next_deadline(),
    "recover": lambda manager: manager.recover(),
    "purge": lambda manager: manager.purge(ended_before=START),
    "compact": lambda manager: manager.compact("s", keep=1),
    "history": lambda manager: manager.history("s"),
    "get of a table": lambda manager: manager.table("s", "notes").find("k"),
    "put of a table": lambda manager: manager.table("s", "notes").put("k", 1),
    "delete of a table": lambda manager: manager.table("s", "notes").delete("k"),
    "clear of a table": lambda manager: manager.table("s", "notes").clear(),
    "items of a table": lambda manager: manager.table("s", "notes").items(),
    "fire and write": lambda manager: manager.fire("s", "touch", writes=[Put("notes", "k", 1)]),
    "get of a context": lambda manager: manager.context("s").get(),
    "add to a context": lambda manager: manager.context("s").add_message("user", "hello"),
    "send_message": lambda manager: manager.send_message("supervised", "user", "hello"),
    "position": lambda manager: manager.position(),
    "read_events": lambda manager: manager.read_events(),
    "events": _first,
    "events that come": _next,
    "verify": lambda manager: manager.verify(),
    "batch": lambda manager: manager.batch(_two),
    "close": lambda manager: manager.close(),
}


def test_aio_cancelling_every_verb_is_tried() -> None:
    """The list has every public method of the manager that is awaited."""
    public = {name for name in dir(aio.SessionManager) if not name.startswith("_")}
    tried = {name.split()[0] for name in VERBS}
    assert public - tried == {
        "lifecycle",
        "store",
        "subscribe",
        "on_enter",
        "on_leave",
        "observe",
        "table",
        "context",
    }


async def _as_verb(verb: Verb, manager: aio.SessionManager) -> None:
    await verb(manager)


@pytest.mark.parametrize("verb", VERBS)
@simulated
async def test_aio_cancelling_leaves_before_or_after(clock: ManualClock, verb: str) -> None:
    """At whichever wait a verb is cancelled, the store is sound, and nothing runs unwatched."""
    outcomes = set()
    for number in itertools.count():
        store = HookedMemory(SESSION_LIFECYCLE)
        tasks = asyncio.all_tasks()
        async with opened(clock, store=store) as manager:
            await manager.create("s")
            await manager.create("busy")
            await manager.begin_task("busy", "t")
            await manager.create("supervised", children=[Child("c", waits)])
            made = asyncio.ensure_future(cancelled_at(_as_verb(VERBS[verb], manager), number))
            await asyncio.wait((made,))
            if not made.cancelled():
                waited = made.result()
                outcomes.add("ignored" if waited else "unharmed")
            else:
                waited = True
                outcomes.add("cancelled")
        assert asyncio.all_tasks() == tasks  # and what was cancelled has left no task behind
        _check_sound(store, clock, alone=verb == "create" or not made.cancelled())
        if not waited:
            break
    assert number > 0
    assert outcomes == {"cancelled", "unharmed"}


def _check_sound(store: HookedMemory, clock: ManualClock, *, alone: bool) -> None:
    """Check what is stored after a verb was cancelled and its manager closed.

    Args:
        store: What is checked.
        clock: Its time.
        alone: Whether a new session may live on: nothing runs for it, or somebody waits for it.
    """
    with SessionManager(store, clock=clock) as later:
        assert later.verify().problems == ()
        new = later.find("new")
        if new is not None and not alone:
            assert new.status == "terminated"
        assert (later.find("b1") is None) == (later.find("b2") is None)
        assert later.get("s").state.active_tasks in ((), ("t",))
        assert "work" not in later.get("s").state.active_tasks
        for session in later.list(status=SESSION_LIFECYCLE.statuses, limit=100):
            assert session.status != "initializing"
        # The manager is closed: what it left can be cleared away, and nothing is stuck for ever.
        later.recover()
        for session in later.list(limit=100):
            assert later.terminate(session.session_id, wait=False).status in (
                "terminated",
                "terminating",
            )


@pytest.mark.parametrize(
    ("method", "trigger", "told", "status"),
    [
        ("commit", "go_idle", GONE_THROUGH, "idle"),
        ("load", "resume", FAILED + "InvalidTransitionError", "active"),
    ],
)
@in_real_time
async def test_aio_cancelling_a_call_that_has_begun_is_waited_for(
    method: str, trigger: str, told: str, status: str
) -> None:
    """Once a thread has begun with a call, it is waited for, and the note says what came of it."""
    store = HookedMemory(SESSION_LIFECYCLE)
    async with aio.SessionManager(store) as manager:
        await manager.create("s")
        loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def stuck(*_: object) -> None:
            loop.call_soon_threadsafe(begun.set)
            await_event(go_on)

        store.before[method] = once(stuck)
        call = asyncio.ensure_future(manager.fire("s", trigger))
        await begun.wait()
        for _ in range(3):
            call.cancel()
            await asyncio.sleep(0)
        assert not call.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        [note] = caught.value.__notes__
        assert note.startswith(told)
        assert (await manager.get("s")).status == status


@in_real_time
async def test_aio_cancelling_a_call_that_has_not_begun_is_never_made() -> None:
    """A call that waits for a thread is withdrawn by its cancellation, at once and for good."""
    store = HookedMemory(SESSION_LIFECYCLE)
    async with aio.SessionManager(store, max_threads=1) as manager:
        await manager.create("s")
        loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def stuck(*_: object) -> None:
            loop.call_soon_threadsafe(begun.set)
            await_event(go_on)

        store.before["commit"] = once(stuck)
        first = asyncio.ensure_future(manager.touch("s"))
        await begun.wait()
        second = asyncio.ensure_future(manager.fire("s", "go_idle"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await second
        assert caught.value.__notes__ == [NOT_BEGUN]
        assert not first.done()
        go_on.set()
        await first
        assert ((await manager.get("s")).status, store.calls["commit"]) == ("active", 2)


@in_real_time
async def test_aio_cancelling_is_undone_before_the_end() -> None:
    """What is undone for somebody who was cancelled is waited for by the end of the calls."""
    calls, made, undone = Calls(1), threading.Event(), []

    async def undo(value: int) -> None:
        await asyncio.sleep(0)
        undone.append(await calls(lambda: value + 1))

    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def make() -> int:
        loop.call_soon_threadsafe(begun.set)
        await_event(made)
        return 1

    call = asyncio.ensure_future(calls(make, undo=undo))
    await begun.wait()
    call.cancel()
    await asyncio.sleep(0)
    made.set()
    await calls.close()
    assert undone == [2]
    with pytest.raises(asyncio.CancelledError):
        await call
