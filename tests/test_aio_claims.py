"""On a loop no claim of a worker is left where nothing runs, and nothing runs without a claim."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from managing import HookedMemory, Worker, begin, once
from supervised import in_real_time

from session_fsm import (
    Session,
    SessionConfig,
    SessionStartError,
    SessionSupervisedError,
    StoreUnavailableError,
)
from session_fsm import SessionManager as BlockingManager
from session_fsm.aio import Child, ChildContext, SessionManager
from session_fsm.stores.records import Work

WORKER = Work("worker")


def cut_off(*_: object) -> None:
    """Fail as a store that can't be reached."""
    raise StoreUnavailableError(problem="cut off")


async def idle(context: ChildContext) -> None:
    """Run until asked to stop."""
    await context.stopping.wait()


def children(_: Session | None = None) -> list[Child]:
    """Return what runs for a session."""
    return [Child("agent", idle)]


def left_by_the_dead(store: HookedMemory, *session_ids: str) -> None:
    """Have sessions whose worker is to be started anew, and which nobody runs."""
    dead = BlockingManager(store)
    config = SessionConfig(recovery="restart")
    for session_id in session_ids:
        dead.create(session_id, config=config, start=lambda _: Worker())
    store.dismiss(dead._core.owner_id)


@contextmanager
def held(hooks: dict[str, Callable[..., object]], name: str) -> Iterator[threading.Event]:
    """Have a call of the store wait until the block ends; gives what is set when it does."""
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        go_on.wait(20)

    hooks[name] = once(wait)
    try:
        yield inside
    finally:
        go_on.set()


async def check_healed(manager: SessionManager, store: HookedMemory, *ids: str) -> None:
    """See that the next recovery lets go of what is claimed, so that sessions can be supervised."""
    store.before.clear()
    store.after.clear()
    await manager.recover()
    for session_id in ids:
        assert store.work_in(session_id) == ()
        assert (await manager.supervise(session_id, children())).status in {"active", "idle"}
        assert store.work_in(session_id) == (WORKER,)


@in_real_time
async def test_aio_claims_of_starts_that_fail_while_the_store_is_away() -> None:
    """What could not be let go of is told, and is by the next recovery; the others are, now."""
    store = HookedMemory()
    left_by_the_dead(store, "a", "b", "c")

    def restart(session: Session) -> list[Child]:
        if session.session_id == "c":
            return []
        raise OSError("no such image")

    async with SessionManager(store, max_threads=1) as manager:
        store.before["release"] = once(cut_off)
        report = await manager.recover(restart=restart)
        [(kept, cause)] = report.failed
        assert "cut off" in cause
        done = {"a": report.ended, "b": report.ended, "c": report.released}
        assert {each for each, how in done.items() if each in how} == set("abc") - {kept}
        assert store.work_in(kept) == (WORKER,)
        await check_healed(manager, store, kept)


@in_real_time
async def test_aio_claims_of_a_recovery_that_is_cancelled() -> None:
    """All that was claimed is let go of, though the store is away for one of them."""
    store = HookedMemory()
    left_by_the_dead(store, "a", "b", "c")
    async with SessionManager(store) as manager:
        with held(store.before, "marks") as inside:
            recovering = asyncio.ensure_future(manager.recover(restart=children))
            await asyncio.to_thread(inside.wait, 20)
            recovering.cancel()
            await asyncio.sleep(0)
            store.before["release"] = once(cut_off)
        with pytest.raises(asyncio.CancelledError):
            await recovering
        assert sorted(map(store.work_in, "abc")) == [(), (), (WORKER,)]
        await check_healed(manager, store, "a", "b", "c")


@in_real_time
async def test_aio_claims_of_starts_that_are_cancelled_before_their_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A start that was never begun lets go of what was claimed for it."""
    store = HookedMemory()
    left_by_the_dead(store, "a", "b")
    gather = asyncio.gather
    async with SessionManager(store) as manager:
        recovering = asyncio.ensure_future(manager.recover(restart=children))

        def cancelled_first(*begun: Any) -> Any:
            # Before the first step of those that are made tasks behind it.
            asyncio.get_running_loop().call_soon(recovering.cancel)
            return gather(*begun)

        monkeypatch.setattr(asyncio, "gather", cancelled_first)
        with pytest.raises(asyncio.CancelledError):
            await recovering
        monkeypatch.undo()
        assert store.work_in("a") == store.work_in("b") == ()
        await check_healed(manager, store, "a", "b")


@in_real_time
async def test_aio_claims_of_a_supervision_that_is_cancelled() -> None:
    """A session that nothing runs for can be supervised later, though the store was away."""
    store = HookedMemory()
    async with SessionManager(store) as manager:
        await manager.create("a")
        with held(store.after, "commit") as inside:
            supervising = asyncio.ensure_future(manager.supervise("a", children()))
            await asyncio.to_thread(inside.wait, 20)
            supervising.cancel()
            await asyncio.sleep(0)
            store.before["release"] = once(cut_off)
        with pytest.raises(asyncio.CancelledError):
            await supervising
        with pytest.raises(SessionSupervisedError):
            await manager.supervise("a", children())
        await check_healed(manager, store, "a")


@in_real_time
async def test_aio_claims_of_a_start_whose_end_can_not_be_told() -> None:
    """A session that could not be ended is told as one that lives, and is free again."""
    store = HookedMemory()

    async def bad(_: ChildContext) -> None:
        store.before["commit"] = once(cut_off)
        raise ValueError("no such model")

    async with SessionManager(store) as manager:
        await manager.create("a")
        with pytest.raises(SessionStartError, match="lives on") as caught:
            await manager.supervise("a", [Child("agent", bad, signals_ready=True)])
        assert caught.value.lives
        assert (await manager.get("a")).status == "active"
        await check_healed(manager, store, "a")


@in_real_time
async def test_aio_claims_of_supervisors_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that has stopped before its session is activated does not come back.

    A lapse would wait for it for ever.
    """
    store = HookedMemory()
    async with SessionManager(store) as manager:
        inner = manager._desk.inner
        started, inside, go_on = inner.started, threading.Event(), threading.Event()

        def slowly(*arguments: Any) -> Session:
            inside.set()
            go_on.wait(20)
            return started(*arguments)

        monkeypatch.setattr(inner, "started", slowly)
        creating = asyncio.ensure_future(manager.create("a", children=children()))
        await asyncio.to_thread(inside.wait, 20)
        await manager.terminate("a", wait=False)
        while inner._workers._running:
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(SessionStartError):
            await creating
        assert inner._workers._running == {}
        assert (await manager.get("a")).worker is None
        former = inner._core.owner_id
        await asyncio.wrap_future(begin(inner._lapsed))
        assert inner._core.owner_id != former
