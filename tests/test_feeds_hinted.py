"""Processes that share a PostgreSQL server hear of each other's commits, without a look."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from managing import begin, end

from session_fsm import SessionManager
from session_fsm.aio import SessionManager as AsyncManager
from session_fsm.stores import PostgresStore

NEVER_SECONDS = 1e6
"""Nobody would look for himself before a test is over."""


@pytest.fixture
def other(postgres_url: str) -> Iterator[SessionManager]:
    """A manager of another store, as another process has it."""
    with SessionManager(postgres_url) as manager:
        yield manager


def test_feeds_hinted_wake_a_feed(postgres_url: str, other: SessionManager) -> None:
    """Whoever follows a feed is told what others commit, though it never looks by itself."""
    with SessionManager(postgres_url) as manager:
        feed = manager.events(after=0, poll_seconds=NEVER_SECONDS)
        for session_id in ("a", "b"):
            told = begin(lambda: [next(feed) for _ in range(2)])
            other.create(session_id)
            [[created, moved]] = end(told)
            assert {created.session_id, moved.session_id} == {session_id}


def test_feeds_hinted_wake_a_feed_on_a_loop(postgres_url: str, other: SessionManager) -> None:
    """The same for a feed that is followed on an event loop."""

    async def follow() -> list[str]:
        async with asyncio.timeout(60), AsyncManager(postgres_url) as manager:
            told: list[str] = []
            async for event in manager.events(after=0, poll_seconds=NEVER_SECONDS):
                told.append(event.event.kind)
                if len(told) == 1:
                    await asyncio.to_thread(other.touch, "a")
                if told[-1] == "changed":
                    break
            return told

    other.create("a")
    assert asyncio.run(follow()) == ["created", "moved", "changed"]


def test_feeds_hinted_end_with_the_manager(postgres_store: PostgresStore) -> None:
    """A closed manager is not called any longer by a store that goes on."""
    manager = SessionManager(postgres_store)
    assert list(manager.events(after=0, timeout_seconds=0, poll_seconds=NEVER_SECONDS)) == []
    assert len(postgres_store._hints._callbacks) == 1
    manager.close()
    assert postgres_store._hints._callbacks == {}
