"""What a node at rest asks of a PostgreSQL server, and what purged sessions leave there.

`docs/scaling.md` reckons with these figures.
"""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from managing import wait_until
from postgres_server import PostgresServer
from supervised import in_real_time

from session_fsm import SessionManager
from session_fsm.aio import SessionManager as AwaitedManager
from session_fsm.stores import PostgresStore

PURGED = 1000


def test_rest_of_a_manager_holds_three_connections(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """One that has created a session has one to work, one for heartbeats, and one for hints."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'at_rest'"
    url = f"{postgres_url}&application_name=at_rest"
    with closing(PostgresStore(url)) as store, SessionManager(store) as manager:
        manager.create("a")
        wait_until(lambda: postgres.execute(query) == [(3,)])


def test_rest_of_a_node_asks_nine_things_for_each_heartbeat(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two for the lease, two for what there is to tend, and five for what the dead have left."""
    execute, seen = psycopg.Cursor.execute, []

    def noted(cursor: Any, query: bytes, *told: Any, **more: Any) -> Any:
        if query not in (b"BEGIN", b"COMMIT", "BEGIN", "COMMIT"):
            seen.append(query)
        return execute(cursor, query, *told, **more)

    with SessionManager(postgres_store) as manager:
        manager.create("a")
        manager.position()
        monkeypatch.setattr(psycopg.Cursor, "execute", noted)
        asked = []
        for rest in (postgres_store._leases.renew, postgres_store._tending.tend, manager.recover):
            seen.clear()
            rest()
            asked.append(len([query for query in seen if b"pg_notify" not in query]))
        monkeypatch.undo()
    assert asked == [2, 2, 5]


@in_real_time
async def test_rest_of_an_awaited_manager_asks_four_things_for_each_sweep(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing due, a sweep is four look-ups."""
    execute, seen, many = psycopg.Cursor.execute, [], threading.Event()

    def noted(cursor: Any, query: Any, *told: Any, **more: Any) -> Any:
        seen.append(query)
        if len(seen) >= 200:
            many.set()
        return execute(cursor, query, *told, **more)

    async with AwaitedManager(postgres_url, sweep_poll_seconds=0.01) as manager:
        await manager.create("a")
        monkeypatch.setattr(psycopg.Cursor, "execute", noted)
        while not many.is_set():
            await manager.find("none")
        monkeypatch.undo()
    often = {query for query in seen if seen.count(query) > 4 and b"session_id = " not in query}
    assert len(often) == 4
    assert all(query.lstrip().startswith(b"SELECT") for query in often)


def test_rest_of_a_purged_session_is_some_twelve_hundred_bytes(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """Its tombstone, and how far its events were removed, with their index entries."""
    manager = SessionManager(postgres_store)
    with manager.batch():
        for number in range(PURGED):
            manager.create(f"agent-{number:032d}")
            manager.terminate(f"agent-{number:032d}")
    later = postgres_store.clock.now() + timedelta(days=1)
    assert manager.purge(ended_before=later) == PURGED
    assert manager.position() >= PURGED
    manager.close()
    size = 0
    for table in ("session_event", "feed_removed"):
        name = f"{postgres_store._sql.quoted}.{table}"
        postgres.execute(f"VACUUM FULL {name}")
        [(found,)] = postgres.execute("SELECT pg_total_relation_size(%s::regclass)", [name])
        size += found
    assert 1_100 < size / PURGED < 1_300
