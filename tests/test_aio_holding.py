"""A block that holds a task hears in time that another process has ended it, and at what cost."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from managing import START, HookedSqlite, House, once, seconds
from supervised import opened, simulated

from session_fsm import CorruptRecordError, StoreUnavailableError, TaskDroppedError
from session_fsm.clock import ManualClock

pytest_plugins = ("manager_fixtures",)

POLL = 5.0


async def hold(manager: Any, session_id: str, task_id: str = "build") -> None:
    """Work on a task for ever."""
    async with manager.task(session_id, task_id):
        await asyncio.Event().wait()


async def begun(*tasks: tuple[Any, str, str]) -> list[asyncio.Task[None]]:
    """Begin to work on tasks, each of a manager and a session."""
    working = [asyncio.ensure_future(hold(*each)) for each in tasks]
    for manager, session_id, task_id in tasks:
        while task_id not in (await manager.get(session_id)).state.active_tasks:
            await asyncio.sleep(0)
    return working


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda other: other.fail("s", "boom"), "boom"),
        (lambda other: other.end_task("s", "build", reason="done elsewhere"), "done elsewhere"),
        (lambda other: other.end_task("s", "build"), "end_task was fired"),
    ],
)
@simulated
async def test_aio_holding_ends_with_what_others_end(
    clock: ManualClock, file_house: House, end: Any, told: str
) -> None:
    """Work on a task that another process has ended is cancelled by the next poll, and told why."""
    other = file_house.open(clock=clock)
    async with opened(clock, store=file_house.url, sweep_poll_seconds=POLL) as manager:
        await manager.create("s")
        await manager.create("t")
        [working, others] = await begun((manager, "s", "build"), (manager, "t", "build"))
        await asyncio.sleep(3 * POLL)
        end(other)
        at = clock.now()
        with pytest.raises(TaskDroppedError, match=told):
            await working
        assert clock.now() - at <= seconds(POLL)
        await asyncio.sleep(2 * POLL)
        assert not others.done()
        others.cancel()
        await asyncio.wait((others,))
        assert not manager._desk.holding._held


@simulated
async def test_aio_holding_hears_of_a_session_that_is_gone(
    clock: ManualClock, file_house: House
) -> None:
    """Work for a session that another process has ended and purged is cancelled."""
    other = file_house.open(clock=clock)
    async with opened(clock, store=file_house.url, sweep_poll_seconds=POLL) as manager:
        await manager.create("s")
        [working] = await begun((manager, "s", "build"))
        other.fail("s", "boom")
        assert other.purge(ended_before=START + seconds(1000)) == 1
        with pytest.raises(TaskDroppedError):
            await working


@simulated
async def test_aio_holding_costs_by_what_others_do(clock: ManualClock, tmp_path: Path) -> None:
    """Tasks of sessions to which nothing happens are not looked at, however many are held."""
    store = HookedSqlite(tmp_path / "s.db")
    async with opened(clock, store=store, sweep_poll_seconds=POLL) as manager:
        for number in range(20):
            await manager.create(f"s{number}")
        working = await begun(*((manager, f"s{number}", "build") for number in range(20)))
        await asyncio.sleep(2 * POLL)
        store.calls.clear()
        await asyncio.sleep(10 * POLL)
        assert 9 <= store.calls["feed"] <= 11
        assert store.calls["work_in"] == store.calls["load"] == 0
        await manager.touch("s3")
        await asyncio.sleep(2 * POLL)
        # Once, or twice if it was made in the middle of a look.
        assert 1 <= store.calls["work_in"] <= 2
        for each in working:
            each.cancel()
        await asyncio.wait(working)
        store.calls.clear()
        await asyncio.sleep(10 * POLL)
        assert store.calls["feed"] == 0
    store.close()


@simulated
async def test_aio_holding_looks_again_when_it_could_not(
    clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be looked at is looked at with the next sweep."""
    store = HookedSqlite(tmp_path / "s.db")
    async with (
        opened(clock, store=store, sweep_poll_seconds=POLL) as manager,
        opened(clock, store=f"sqlite:///{tmp_path}/s.db", sweep_poll_seconds=1e6) as other,
    ):
        await manager.create("s")
        [working] = await begun((manager, "s", "build"))
        await asyncio.sleep(2 * POLL)

        def unavailable(*_: object) -> None:
            raise StoreUnavailableError(problem="no disk")

        store.before["work_in"] = unavailable
        await other.fail("s", "boom")
        with caplog.at_level(logging.ERROR):
            await asyncio.sleep(2 * POLL)
        assert "whether others have ended tasks" in caplog.text
        assert not working.done()
        store.before.clear()
        with pytest.raises(TaskDroppedError, match="boom"):
            await working
    store.close()


@simulated
async def test_aio_holding_looks_again_when_it_was_cancelled(
    clock: ManualClock, tmp_path: Path
) -> None:
    """Whoever cancels all tasks in the middle of a look keeps nobody from hearing of an end."""
    store = HookedSqlite(tmp_path / "s.db")
    loop = asyncio.get_running_loop()
    async with (
        opened(clock, store=store, sweep_poll_seconds=POLL) as manager,
        opened(clock, store=f"sqlite:///{tmp_path}/s.db", sweep_poll_seconds=1e6) as other,
    ):
        await manager.create("s")
        [working] = await begun((manager, "s", "build"))
        await asyncio.sleep(2 * POLL)
        cancelled = asyncio.Event()

        def cancel() -> None:
            for task in tuple(manager._desk._lasting):
                task.cancel()
            cancelled.set()

        store.before["work_in"] = once(lambda *_: loop.call_soon_threadsafe(cancel))
        await other.fail("s", "boom")
        with pytest.raises(TaskDroppedError, match="boom"):
            await working
        assert cancelled.is_set()
    store.close()


@simulated
async def test_aio_holding_needs_no_history(clock: ManualClock, tmp_path: Path) -> None:
    """A task that others have ended is dropped also where nobody can read how."""
    store = HookedSqlite(tmp_path / "s.db")
    async with (
        opened(clock, store=store, sweep_poll_seconds=POLL) as manager,
        opened(clock, store=f"sqlite:///{tmp_path}/s.db", sweep_poll_seconds=1e6) as other,
    ):
        await manager.create("s")
        [working] = await begun((manager, "s", "build"))

        def unreadable(*_: object) -> None:
            raise CorruptRecordError(record="the history", problems=("torn",))

        store.before["history"] = unreadable
        await other.fail("s", "boom")
        with pytest.raises(TaskDroppedError, match="another process"):
            await working
        store.before.clear()
    store.close()
