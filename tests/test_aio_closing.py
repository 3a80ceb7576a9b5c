"""Closing a manager on a loop while it is asked for something: nothing is left running, ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from managing import HookedMemory, HookedSqlite, await_event, once
from supervised import in_real_time, waits

from session_fsm import SESSION_LIFECYCLE, ManagerClosedError, Session
from session_fsm.aio import Child, ChildContext, SessionManager
from session_fsm.aio.calls import Calls


class Gate:
    """Holds the next commit of a store until it is let through."""

    def __init__(self, store: HookedMemory) -> None:
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        self._go_on = threading.Event()
        store.after["commit"] = once(self._stop)

    def _stop(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        await_event(self._go_on)

    def open(self) -> None:
        """Let it through."""
        self._go_on.set()


async def never(child: ChildContext) -> None:
    """Fail: nothing may be started."""
    raise AssertionError(f"{child.name} was started")


Begin = Callable[[SessionManager], Awaitable[Session]]


async def _start(_: Session) -> None:
    raise AssertionError("it was started")


BEGUN: dict[str, Begin] = {
    "create with children": lambda manager: manager.create("s", children=[Child("c", never)]),
    "create with start": lambda manager: manager.create("s", start=_start),
    "supervise": lambda manager: manager.supervise("old", [Child("c", never)]),
}


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("verb", BEGUN)
@in_real_time
async def test_aio_closing_starts_nothing_any_longer(verb: str, slow: bool) -> None:
    """A session whose creation is under way at the close is not started, and the close is done."""
    store = HookedMemory(SESSION_LIFECYCLE)
    asked, may_end = asyncio.Event(), asyncio.Event()

    async def running(child: ChildContext) -> None:
        await child.stopping.wait()
        asked.set()
        await may_end.wait()

    async with SessionManager(store) as other:
        manager = SessionManager(store)
        async with manager:
            await manager.create("old")
            if slow:
                await manager.create("slow", children=[Child("c", running)])
            gate = Gate(store)
            begun = asyncio.ensure_future(BEGUN[verb](manager))
            await gate.reached.wait()
            closing = asyncio.ensure_future(manager.close())
            if slow:
                await asked.wait()
            await asyncio.sleep(0)
            gate.open()
            await asyncio.wait((begun,))
            assert isinstance(begun.exception(), ManagerClosedError)
            may_end.set()
            await closing
        if verb == "supervise":
            assert (await other.get("old")).status == "active"
            taken = await other.supervise("old", [Child("c", waits)])
            assert taken.worker.alive
        else:
            session = await other.get("s")
            assert session.status == "terminated"
            assert session.state.error == "its manager was closed"
        assert (await other.verify()).ok


@in_real_time
async def test_aio_closing_undoes_what_was_begun_though_it_is_cancelled() -> None:
    """Who is cancelled while the close undoes its creation is cancelled, and it is undone."""
    store = HookedMemory(SESSION_LIFECYCLE)
    async with SessionManager(store) as other:
        manager = SessionManager(store)
        async with manager:
            first = Gate(store)
            begun = asyncio.ensure_future(manager.create("s", children=[Child("c", never)]))
            await first.reached.wait()
            closing = asyncio.ensure_future(manager.close())
            await asyncio.sleep(0)
            second = Gate(store)
            first.open()
            await second.reached.wait()
            begun.cancel()
            await asyncio.sleep(0)
            second.open()
            with pytest.raises(asyncio.CancelledError):
                await begun
            await closing
        assert (await other.get("s")).status == "terminated"


async def taking_over(manager: SessionManager) -> tuple[asyncio.Task[Any], threading.Event]:
    """Begin a recovery that has taken over what there is, and waits to tell so."""
    loop, reached, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    inner = manager._desk.inner
    recover_for = inner.recover_for

    def held(**options: Any) -> Any:
        found = recover_for(**options)
        loop.call_soon_threadsafe(reached.set)
        await_event(go_on)
        return found

    inner.recover_for = held  # type: ignore[method-assign]
    recovering = asyncio.ensure_future(manager.recover(restart=lambda _: [Child("c", never)]))
    await reached.wait()
    return recovering, go_on


@pytest.mark.parametrize("slow", [False, True])
@in_real_time
async def test_aio_closing_starts_nothing_that_was_taken_over(tmp_path: Path, slow: bool) -> None:
    """What a recovery takes over while the manager is closed is not started, and left to others."""
    path = tmp_path / "s.db"
    config = {"recovery": "restart"}
    async with SessionManager(f"sqlite:///{path}") as dead:
        await dead.create("s", config=config, children=[Child("c", waits)])
    store = HookedSqlite(path)
    asked, may_end = asyncio.Event(), asyncio.Event()

    async def running(child: ChildContext) -> None:
        await child.stopping.wait()
        asked.set()
        await may_end.wait()

    async with SessionManager(store) as manager:
        if slow:
            await manager.create("slow", children=[Child("c", running)])
        recovering, go_on = await taking_over(manager)
        closing = asyncio.ensure_future(manager.close())
        if slow:
            await asked.wait()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait((recovering,))
        assert isinstance(recovering.exception(), ManagerClosedError)
        may_end.set()
        await closing
    store.close()
    async with SessionManager(f"sqlite:///{path}") as other:
        report = await other.recover(restart=lambda _: [Child("c", waits)])
        assert "s" in report.restarted
        assert (await other.get("s")).worker.alive
        assert (await other.verify()).ok


@in_real_time
async def test_aio_closing_is_not_needed_to_let_go_of_what_was_taken_over(tmp_path: Path) -> None:
    """Who is cancelled while sessions are taken over keeps no claim of workers that never run."""
    path = tmp_path / "s.db"
    async with SessionManager(f"sqlite:///{path}") as dead:
        await dead.create("s", config={"recovery": "restart"}, children=[Child("c", waits)])
    store = HookedSqlite(path)
    async with SessionManager(store) as manager:
        recovering, go_on = await taking_over(manager)
        recovering.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await recovering
        session = await manager.supervise("s", [Child("c", waits)])
        assert session.worker.alive
    store.close()


@pytest.mark.parametrize("turns", range(8))
@in_real_time
async def test_aio_closing_waits_for_those_who_are_just_told(turns: int) -> None:
    """Whoever is told while the calls are being closed may make the call that follows from it."""
    calls, loop = Calls(1), asyncio.get_running_loop()
    first, last, told = (loop.create_future() for _ in range(3))

    async def goes_on() -> int:
        await told
        return await calls(lambda: 7)

    asked = asyncio.ensure_future(goes_on())
    calls.hold(first)
    closing = asyncio.ensure_future(calls.close())
    await asyncio.sleep(0)
    calls.hold(last)
    calls.let_go(first)
    for _ in range(turns):
        await asyncio.sleep(0)
    told.set_result(None)
    calls.let_go(last)
    assert await asked == 7
    await closing
