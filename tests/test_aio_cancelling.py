"""Whoever is cancelled, at whichever wait of whichever verb: the store is as before or as after."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest
from managing import START, HookedMemory, await_event, once
from supervised import in_real_time, opened, simulated, waits

from session_fsm import (
    SESSION_LIFECYCLE,
    Message,
    Put,
    Session,
    SessionManager,
    StoreUnavailableError,
    TransitionError,
    aio,
)
from session_fsm.aio import Child
from session_fsm.aio.calls import (
    END_BEGUN,
    ENDED,
    FAILED,
    GONE_THROUGH,
    LEFT_ALONE,
    NOT_BEGUN,
    NOT_ENDED,
    TASK_ENDED,
    Calls,
)
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
    "fire what is refused": lambda manager: manager.fire("s", "resume"),
    "fire and write": lambda manager: manager.fire("s", "touch", writes=[Put("notes", "k", 1)]),
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
    "send_message": lambda manager: manager.send_message("supervised", "user", "hello"),
    "send_message to one at rest": lambda manager: manager.send_message("resting", "user", "wake"),
    "position": lambda manager: manager.position(),
    "read_events": lambda manager: manager.read_events(),
    "events": _first,
    "events that come": _next,
    "verify": lambda manager: manager.verify(),
    "batch": lambda manager: manager.batch(_two),
    "close": lambda manager: manager.close(),
}

TABLE_VERBS: dict[str, Callable[[aio.SessionTable], Awaitable[object]]] = {
    "get": lambda table: table.get("old"),
    "find": lambda table: table.find("old"),
    "items": lambda table: table.items(),
    "put": lambda table: table.put("old", 2, expected_version=1),
    "delete": lambda table: table.delete("old"),
    "clear": lambda table: table.clear(),
}
CONTEXT_VERBS: dict[str, Callable[[aio.ContextManager], Awaitable[object]]] = {
    "get": lambda context: context.get(),
    "change": lambda context: context.change(lambda now: now.with_value("k", 2)),
    "add_message": lambda context: context.add_message("user", "hello"),
    "add_messages": lambda context: context.add_messages([Message("user", "x")] * 2),
    "history": lambda context: context.history(),
    "clear_history": lambda context: context.clear_history(),
    "open_file": lambda context: context.open_file("b.py"),
    "close_file": lambda context: context.close_file("a.py"),
    "files": lambda context: context.files(),
    "index_file": lambda context: context.index_file("b.py", 2),
    "unindex_file": lambda context: context.unindex_file("a.py"),
    "find_files": lambda context: context.find_files(),
    "set_value": lambda context: context.set_value("k", 2),
    "value": lambda context: context.value("k"),
    "delete_value": lambda context: context.delete_value("k"),
    "values": lambda context: context.values(),
    "build_context": lambda context: context.build_context(),
}


def _of_table(verb: Callable[[aio.SessionTable], Awaitable[object]]) -> Verb:
    return lambda manager: verb(manager.table("s", "notes"))


def _of_context(verb: Callable[[aio.ContextManager], Awaitable[object]]) -> Verb:
    return lambda manager: verb(manager.context("s"))


VERBS |= {f"{name} of a table": _of_table(verb) for name, verb in TABLE_VERBS.items()}
VERBS |= {f"{name} of a context": _of_context(verb) for name, verb in CONTEXT_VERBS.items()}

READ_ONLY_WAITS = {"events", "events that come"}
"""Verbs that change nothing, and that may be cancelled between their calls."""
IN_SEVERAL_CALLS = {
    "create with start": "new",
    "create with children": "new",
    "supervise": "s",
    "task": "s",
    "terminate": "s",
    "terminate supervised": "supervised",
    "terminate busy": "busy",
}
"""Verbs that make several calls, and the session that they are about."""


def _public(kind: type[object]) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_aio_cancelling_every_verb_is_tried() -> None:
    """The lists have every public method that is awaited, of managers, tables and contexts."""
    tried = {name.split()[0] for name in VERBS}
    assert _public(aio.SessionManager) - tried == {
        "lifecycle",
        "store",
        "subscribe",
        "on_enter",
        "on_leave",
        "observe",
        "table",
        "context",
    }
    assert _public(aio.SessionTable) == set(TABLE_VERBS)
    assert _public(aio.ContextManager) - {"child"} == set(CONTEXT_VERBS)


async def _as_verb(verb: Verb, manager: aio.SessionManager) -> None:
    with contextlib.suppress(TransitionError):
        await verb(manager)


class Scene:
    """A store with sessions of all kinds, and what its manager was asked to do with them."""

    def __init__(self, clock: ManualClock) -> None:
        self.store = HookedMemory(SESSION_LIFECYCLE)
        self._clock = clock
        self._inboxes: dict[str, Any] = {}

    async def set_up(self, manager: aio.SessionManager) -> None:
        """Make the sessions."""
        await manager.create("s")
        await manager.table("s", "notes").put("old", 1)
        context = manager.context("s")
        await context.add_message("user", "before")
        await context.open_file("a.py", "text")
        await context.index_file("a.py", 1)
        await context.set_value("k", 1)
        await manager.create("busy")
        await manager.begin_task("busy", "t")
        for session_id in ("supervised", "resting"):
            session = await manager.create(session_id, children=[Child("c", waits)])
            self._inboxes[session_id] = session.worker.inbox()
        await manager.fire("resting", "go_idle")

    def picture(self) -> dict[str, Any]:
        """Return all that is stored of each session but for times, and what its inbox has got."""
        with SessionManager(self.store, clock=self._clock) as looking:
            sessions = looking.list(status=SESSION_LIFECYCLE.statuses, limit=100)
            return {each.session_id: self._picture_of(looking, each) for each in sessions}

    def _picture_of(self, looking: SessionManager, session: Session) -> tuple[Any, ...]:
        state, session_id = session.state, session.session_id
        context = looking.context(session_id)
        inbox = self._inboxes.get(session_id)
        return (
            (session.status, session.revision, len(looking.history(session_id))),
            (state.active_tasks, state.conversation_count, dict(state.metadata), state.error),
            [(item.key, item.value) for item in looking.table(session_id, "notes").items()],
            [message.content for message in context.history()],
            ([file.path for file in context.files()], context.find_files(), context.values()),
            None if inbox is None else [message.content for message in inbox._waiting],
        )


@pytest.mark.parametrize("verb", VERBS)
@simulated
async def test_aio_cancelling_leaves_before_or_after(clock: ManualClock, verb: str) -> None:
    """Wherever a verb is cancelled, what is stored is what its one note says; nothing runs on."""
    outcomes = set()
    done = Scene(clock)
    async with opened(clock, store=done.store) as manager:
        await done.set_up(manager)
        await _as_verb(VERBS[verb], manager)
        after = done.picture()
    for number in itertools.count():
        scene = Scene(clock)
        tasks = asyncio.all_tasks()
        async with opened(clock, store=scene.store) as manager:
            await scene.set_up(manager)
            before = scene.picture()
            made = asyncio.ensure_future(cancelled_at(_as_verb(VERBS[verb], manager), number))
            await asyncio.wait((made,))
            if not made.cancelled():
                waited = made.result()
                outcomes.add("ignored" if waited else "unharmed")
                assert scene.picture() == after
            else:
                waited = True
                outcomes.add("cancelled")
                _check_note(verb, made, before, scene.picture(), after)
        assert asyncio.all_tasks() == tasks  # and what was cancelled has left no task behind
        _check_sound(scene.store, clock, alone=verb == "create" or not made.cancelled())
        if not waited:
            break
    assert number > 0
    assert outcomes == {"cancelled", "unharmed"}


def _check_note(
    verb: str,
    made: asyncio.Future[bool],
    before: dict[str, Any],
    now: dict[str, Any],
    after: dict[str, Any],
) -> None:
    """Check that a cancelled verb has one note, and that this is what came of it."""
    with pytest.raises(asyncio.CancelledError) as caught:
        made.result()
    notes = getattr(caught.value, "__notes__", [])
    if verb in READ_ONLY_WAITS:
        assert len(notes) <= 1
        assert now == before
        return
    [note] = notes
    if note == NOT_BEGUN or note.startswith(FAILED):
        assert now == before
    elif note == GONE_THROUGH:
        assert now == after
    else:
        about = IN_SEVERAL_CALLS[verb]
        others = {key: told for key, told in before.items() if key != about}
        assert {key: told for key, told in now.items() if key != about} == others
        (status, revision, _), (active_tasks, *_), *_ = now[about]
        if note == ENDED:
            assert status == "terminated"
        elif note == END_BEGUN:
            assert status in ("terminating", "terminated")
        elif note == LEFT_ALONE:
            assert (status, revision) == ("active", before[about][0][1] + 1)
        else:
            assert note == TASK_ENDED
            assert (status, active_tasks) == ("idle", ())


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
        for session in later.list(status=SESSION_LIFECYCLE.statuses, limit=100):
            assert session.status != "initializing"
        # The manager is closed: what it left can be cleared away, and nothing is stuck for ever.
        later.recover()
        for session in later.list(limit=100):
            assert later.terminate(session.session_id, wait=False).status in (
                "terminated",
                "terminating",
            )


@simulated
async def test_aio_cancelling_what_can_not_be_ended_is_told(clock: ManualClock) -> None:
    """The note of a creation whose session could not be ended says so; it is recovered later."""
    scene = Scene(clock)

    def fails(_: object) -> None:
        raise StoreUnavailableError(problem="gone")

    async with opened(clock, store=scene.store) as manager:
        made = asyncio.ensure_future(_as_verb(VERBS["create with start"], manager))
        await asyncio.sleep(0.1)
        scene.store.before["commit"] = fails
        made.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await made
        assert caught.value.__notes__ == [NOT_ENDED]
        assert scene.picture()["new"][0][0] == "initializing"
        del scene.store.before["commit"]


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
