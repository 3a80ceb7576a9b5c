"""The pool of a PostgreSQL store: when it connects, what it tells where it can't, how it ends."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from time import monotonic
from typing import Any

import pytest
from cutting import Proxy
from managing import wait_until
from postgres_server import PostgresServer

from session_fsm import StoreUnavailableError
from session_fsm.stores import PostgresStore
from session_fsm.testing.authors import Author


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    """A proxy before the server."""
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def opened(
    postgres: PostgresServer, proxy: Proxy, postgres_url: str
) -> Iterator[Callable[..., PostgresStore]]:
    """Opens stores whose connections go through the proxy, and have the name of their schema."""
    with ExitStack() as stack:

        def open_one(**more: Any) -> PostgresStore:
            url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
            name = postgres_url.rpartition("=")[2]
            store = PostgresStore(f"{url}&application_name={name}", **more)
            return stack.enter_context(closing(store))

        yield open_one
        proxy.refuse(refusing=False)


def backends(postgres: PostgresServer, store: PostgresStore) -> set[int]:
    """The processes of the server that the connections of a store lead to."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
    return {pid for (pid,) in postgres.execute(query, [store._sql.schema])}


def test_postgres_pool_connects_as_often_as_is_needed(
    postgres: PostgresServer, opened: Callable[..., PostgresStore]
) -> None:
    """One caller has one connection, many have no more than the limit, and nobody is refused."""
    store = opened(max_connections=3)
    assert len(backends(postgres, store)) == 1
    for _ in range(5):
        assert store.load("a") is None
    assert len(backends(postgres, store)) == 1
    meeting = threading.Barrier(3)

    def meet(_: int) -> None:
        with store._connections.link() as link:
            link.execute(b"SELECT 1")
            meeting.wait()  # three have one at the same time

    with ThreadPoolExecutor(9) as pool:
        for each in [pool.submit(meet, number) for number in range(9)]:
            each.result()
    assert len(backends(postgres, store)) == 3


def test_postgres_pool_ends_with_its_store(
    postgres: PostgresServer,
    opened: Callable[..., PostgresStore],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A store that is closed leaves neither threads nor connections, and nothing to be warned of.

    A connection that is in use then is closed when it is given back.
    """
    before = set(threading.enumerate())
    with caplog.at_level(logging.WARNING):
        store = opened()
        store.enlist("author")
        store.watch(lambda: None)
        Author(store).write("a", "activate")
        with store._connections.link() as link:
            store.close()
            assert link.execute(b"SELECT 1").fetchone() == (1,)
        assert link.closed
    wait_until(lambda: not backends(postgres, store))
    left = {each.name for each in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("session_fsm")}
    assert not caplog.records
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.load("a")


def test_postgres_pool_tells_why_it_can_not_connect(
    proxy: Proxy, opened: Callable[..., PostgresStore]
) -> None:
    """Where no connection can be made, that is told with its reason, and soon.

    Nothing is left of that once one can be made again.
    """
    store = opened(retry_seconds=0.1)
    proxy.refuse()
    proxy.cut_all()
    for _ in range(3):
        began = monotonic()
        with pytest.raises(StoreUnavailableError, match="connection to server at"):
            store.load("a")
        assert monotonic() - began < 10
    proxy.refuse(refusing=False)
    assert store.load("a") is None


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nobody@127.0.0.1:{port}/postgres", 'role "nobody" does not exist'),
        ("postgres@127.0.0.1:{port}/nowhere", 'database "nowhere" does not exist'),
        ("postgres@127.0.0.1:1/postgres", "Connection refused"),
    ],
)
def test_postgres_pool_tells_at_once_what_is_wrong(
    postgres: PostgresServer, place: str, why: str
) -> None:
    """A store that can't be opened says why, in the words of the server, without trying again."""
    before = set(threading.enumerate())
    with pytest.raises(StoreUnavailableError, match=why):
        PostgresStore(f"postgresql://{place.format(port=postgres.port)}")
    left = set(threading.enumerate()) - before
    assert not {each.name for each in left if each.name.startswith("session_fsm")}


def test_postgres_pool_forgets_what_was_lost(
    postgres: PostgresServer, opened: Callable[..., PostgresStore]
) -> None:
    """Where one connection was lost, those that nobody uses are not trusted either."""
    store = opened(max_connections=3)
    with store._connections.link(), store._connections.link():
        pass
    before = backends(postgres, store)
    assert len(before) == 2
    lost = postgres.execute("SELECT pg_terminate_backend(%s)", [min(before)])
    assert lost == [(True,)]
    for _ in range(2):
        assert store.load("a") is None
    wait_until(lambda: not backends(postgres, store) & before)  # the server may be told later


def test_postgres_pool_survives_interrupts(
    proxy: Proxy, opened: Callable[..., PostgresStore]
) -> None:
    """Whoever is interrupted while it waits for a connection takes none away from others."""
    store = opened(max_connections=1)
    store.load("a")
    me = threading.get_ident()
    for _ in range(3):
        with store._connections.link():
            waiting = store._connections.source

            def interrupt(pool: Any = waiting) -> None:
                wait_until(lambda: pool._pool.get_stats()["requests_waiting"] == 1)
                signal.pthread_kill(me, signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                store.load("a")
            thread.join()
        assert store.load("a") is None
