"""Tasks whose changes go to a PostgreSQL server together: each has its own fate, and just one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from cutting import Proxy
from postgres_server import PostgresServer
from supervised import in_real_time

from session_fsm import Put, RevisionConflictError, SessionNotFoundError, together
from session_fsm.aio import SessionManager, moving
from session_fsm.stores import PostgresStore, postgres_writer
from session_fsm.stores.abc import NotTogetherError
from session_fsm.stores.postgres_commit import PreparedCommit
from session_fsm.stores.postgres_group import move_together
from session_fsm.stores.postgres_tokens import Token
from session_fsm.stores.records import Work
from session_fsm.testing.authors import Author

NAMES = tuple(f"s{number}" for number in range(16))


@pytest.fixture(autouse=True)
def _in_no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing count as slow because other tests keep the machine busy."""
    monkeypatch.setattr(moving, "PATIENCE_SECONDS", 20.0)
    monkeypatch.setattr(together, "SLOW_SECONDS", 20.0)


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    """A proxy before the server."""
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def proxied_store(
    postgres: PostgresServer, proxy: Proxy, postgres_url: str
) -> Iterator[PostgresStore]:
    """A store whose connections go through the proxy."""
    store = PostgresStore(postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/"))
    yield store
    store.close()


async def with_names(manager: SessionManager) -> None:
    """Create the sessions, and have each kind of change be made once by itself."""
    await asyncio.gather(*(manager.create(name) for name in NAMES))
    await manager.create("quick")
    await manager.touch("quick")
    await manager.start_conversation("quick")


@in_real_time
async def test_postgres_together_is_one_statement(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What many tasks ask for in one turn goes to the server in one statement."""
    sizes: list[int] = []

    def move(link: Any, changes: list[PreparedCommit]) -> Any:
        sizes.append(len(changes))
        return move_together(link, changes)

    monkeypatch.setattr(postgres_writer, "move_together", move)
    async with SessionManager(postgres_store) as manager:
        await with_names(manager)
        for _ in range(3):
            await asyncio.gather(*(manager.touch(name) for name in NAMES))
        assert sizes == [len(NAMES)] * 3
        assert {(await manager.get(name)).revision for name in NAMES} == {5}


@in_real_time
async def test_postgres_together_waits_for_no_lock_of_another(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """Who asks for a session that is locked waits for it alone; all others are answered."""
    quoted = postgres_store._connections.sql.quoted
    hold = f"SELECT 1 FROM {quoted}.session WHERE session_id = 's2' FOR UPDATE"
    async with SessionManager(postgres_store) as manager:
        await with_names(manager)
        with postgres.connect() as other:
            other.autocommit = False
            other.execute(hold.encode())
            moves = {name: asyncio.ensure_future(manager.touch(name)) for name in NAMES}
            held = moves.pop("s2")
            assert {(await move).revision for move in moves.values()} == {3}
            assert {(await manager.touch(name)).revision for name in moves} == {4}
            assert not held.done()
            other.commit()
        assert (await held).revision == 3


def test_postgres_together_keeps_tokens(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """What was claimed together, or was left to be claimed alone, is stated from then on."""
    store, author = postgres_store, Author(postgres_store)
    for name in NAMES[:3]:
        author.write(name, "activate")
    hold = f"SELECT 1 FROM {store._connections.sql.quoted}.session WHERE session_id = 's2'"
    claims = [author.draft(name, "touch", claims=[Work("worker")]) for name in NAMES[:3]]
    assert store.commit_all(claims[:1]) == [None]
    with postgres.connect() as other:
        other.autocommit = False
        other.execute(f"{hold} FOR UPDATE".encode())
        left = store.commit_all(claims[1:])
    assert [type(each) for each in left] == [NotTogetherError] * 2
    assert [store._tokens.of("author", name) for name in NAMES[1:3]] == [None, None]
    for commit in claims[1:]:
        store.commit(commit)
    tokens = [store._tokens.of("author", name) for name in NAMES[:3]]
    assert [None if token is None else token.number for token in tokens] == [1, 1, 1]


def test_postgres_together_asks_for_lost_answers(
    proxy: Proxy, proxied_store: PostgresStore
) -> None:
    """What nobody knows of is told as such, and who finds out keeps what it learns."""
    store, author = proxied_store, Author(proxied_store)
    for name in NAMES[:2]:
        author.write(name, "activate", claims=[Work("worker")])
        store._tokens.drop("author", name, Token(1))
    moves = [author.draft(name, "touch") for name in NAMES[:2]]
    proxy.lose_answer(to=moves[0].operation_id.encode())
    asked = store.commit_all(moves)
    assert proxy.happened.wait(5.0)
    for each in asked:
        assert callable(each)
        each()
    tokens = [store._tokens.of("author", name) for name in NAMES[:2]]
    assert [None if token is None else token.number for token in tokens] == [1, 1]
    assert [store.tail(name)[0] for name in NAMES[:2]] == [3, 3]


def test_postgres_together_gives_up_tokens_of_nothing(postgres_store: PostgresStore) -> None:
    """Who states the token of a session that is gone states it once, also among others."""
    store, author = postgres_store, Author(postgres_store)
    author.write("a", "activate", claims=[Work("worker")])
    late = author.draft("a", "touch")
    author.write("b", "activate")
    author.write("a", "terminate", "finish", releases=[Work("worker")])
    author.bury("a")
    store._tokens.keep("author", "a", Token(1))
    refused, made = store.commit_all([late, author.draft("b", "touch")])
    assert isinstance(refused, SessionNotFoundError)
    assert made is None
    assert store._tokens.of("author", "a") is None


@in_real_time
async def test_postgres_together_tells_who_came_too_late(postgres_store: PostgresStore) -> None:
    """Where another node was first, its change is kept, and what expected none is told so."""
    async with SessionManager(postgres_store) as manager, SessionManager(postgres_store) as other:
        await with_names(manager)
        for name in NAMES[:2]:
            await other.start_conversation(name)
        came = await asyncio.gather(
            manager.start_conversation("s0"),
            manager.fire("s1", "touch", expected_revision=2),
            manager.touch("s2"),
            manager.fire("s3", "touch", writes=[Put("notes", "k", 1)]),
            return_exceptions=True,
        )
        assert isinstance(came[1], RevisionConflictError)
        assert (came[1].expected, came[1].found) == (2, 3)
        counts = [(await manager.get(name)).state.conversation_count for name in NAMES[:3]]
        assert counts == [2, 1, 0]
        assert await manager.table("s3", "notes").get("k") == 1
        assert (await manager.verify()).problems == ()


@in_real_time
async def test_postgres_together_lands_once(proxy: Proxy, proxied_store: PostgresStore) -> None:
    """Whatever is cut while they are written, each change of each task is made once, and told."""
    async with SessionManager(proxied_store) as manager:
        await with_names(manager)

        async def count(name: str) -> int:
            told = [await manager.start_conversation(name) for _ in range(12)]
            return told[-1].state.conversation_count

        async def cut() -> None:
            for lose in (proxy.lose_answer, proxy.lose_request) * 4:
                lose()
                if not await asyncio.to_thread(proxy.happened.wait, 2.0):
                    break

        cutting = asyncio.ensure_future(cut())
        assert await asyncio.gather(*map(count, NAMES)) == [12] * len(NAMES)
        await cutting
        assert {(await manager.get(name)).revision for name in NAMES} == {14}
        assert (await manager.verify()).problems == ()
