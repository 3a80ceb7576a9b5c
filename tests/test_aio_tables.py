"""Tables of sessions on a loop: the verbs of the tables of threads, awaited."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from managing import House, seconds
from supervised import opened, simulated

import session_fsm
from session_fsm import (
    Delete,
    GuardRejectedError,
    ItemConflictError,
    ItemNotFoundError,
    ManagerClosedError,
    Put,
    StateInvalidError,
    TransitionError,
)
from session_fsm.aio import SessionTable
from session_fsm.clock import ManualClock

pytest_plugins = ("manager_fixtures",)

BLOCKING = session_fsm.SessionTable


@pytest.fixture
def url(house: House) -> str:
    """The URL of a store, once of each kind."""
    return house.url


def verbs(kind: type[object]) -> set[str]:
    """Return the public names of a class."""
    return {name for name in dir(kind) if not name.startswith("_")}


def test_aio_tables_have_every_verb() -> None:
    """Each verb takes what the other table's takes, returns the same, and says the same of it."""
    assert verbs(SessionTable) == verbs(BLOCKING)
    for name in verbs(BLOCKING):
        ours, theirs = getattr(SessionTable, name), getattr(BLOCKING, name)
        assert inspect.iscoroutinefunction(ours)
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert ours.__doc__ == theirs.__doc__


@simulated
async def test_aio_tables_keep_values(clock: ManualClock, url: str) -> None:
    """What is put is found until it is deleted, or its time has come, or the session is purged."""
    async with opened(clock, store=url) as manager:
        await manager.create("s")
        await manager.create("t")
        notes = manager.table("s", "notes")
        assert (await notes.put("a", {"n": [1]})).version == 1
        assert await notes.put("b", None, ttl_seconds=5) == await notes.find("b")
        assert await notes.get("a") == {"n": [1]}
        assert [item.key for item in await notes.items(limit=1)] == ["a"]
        assert (await notes.items(limit=1)).next == "a"
        assert len(await manager.table("t", "notes").items()) == 0
        await asyncio.sleep(5)
        assert await notes.find("b") is None
        with pytest.raises(ItemNotFoundError):
            await notes.get("b")
        with pytest.raises(ItemConflictError):
            await notes.put("a", 2, expected_version=7)
        assert await notes.delete("a", expected_version=1)
        assert not await notes.delete("a")
        await notes.put("c", 1)
        assert await notes.clear() == 1
        assert repr(notes) == "<SessionTable 'notes' of session 's'>"
        await manager.terminate("s")
        with pytest.raises(TransitionError):
            await notes.put("c", 1)
    with pytest.raises(ManagerClosedError):
        await notes.find("c")


@simulated
async def test_aio_tables_are_written_with_a_move(clock: ManualClock, url: str) -> None:
    """Writes and a move are made together, or neither is."""
    async with opened(clock, store=url) as manager:
        await manager.create("s")
        notes = manager.table("s", "notes")
        moved = await manager.fire("s", "go_idle", writes=[Put("notes", "why", "lunch")])
        assert (moved.status, await notes.get("why")) == ("idle", "lunch")
        await manager.transition("s", "active", writes=[Delete("notes", "why")])
        assert await notes.find("why") is None
        await manager.update("s", metadata={"n": 1}, writes=[Put("notes", "why", 1)])
        await manager.begin_task("s", "t")
        with pytest.raises(GuardRejectedError):
            await manager.fire("s", "go_idle", writes=[Put("notes", "why", 2)])
        assert await notes.get("why") == 1
        with pytest.raises(StateInvalidError):
            manager.table("s", "")


@simulated
async def test_aio_tables_lose_no_update(clock: ManualClock, url: str) -> None:
    """Many tasks that count in one item by its version count each once."""
    async with opened(clock, store=url) as manager:
        await manager.create("s")
        notes = manager.table("s", "notes")

        async def count() -> None:
            while True:
                item = await notes.find("n")
                version, value = (0, 0) if item is None else (item.version, item.value)
                try:
                    await notes.put("n", value + 1, expected_version=version)
                except ItemConflictError:
                    continue
                return

        since = clock.now()
        await asyncio.gather(*(count() for _ in range(20)))
        assert await notes.get("n") == 20
        assert clock.now() - since < seconds(1)
