"""Processes hint to each other that something was committed, outside of the commits."""

from __future__ import annotations

import os
import selectors
import threading
from contextlib import closing
from typing import Any

import pytest
from postgres_server import PostgresServer

from session_fsm.stores import PostgresStore
from session_fsm.stores import postgres_hints as hints
from session_fsm.stores.postgres_hints import channel_of
from session_fsm.testing.authors import Author

PATIENCE_SECONDS = 30


def listeners(postgres: PostgresServer) -> int:
    """Return how many connections listen, as far as their last statement tells."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %%'"
    [(number,)] = postgres.execute(query)
    return int(number)


def test_hints_reach_other_stores(
    postgres_url: str, postgres_store: PostgresStore, postgres: PostgresServer
) -> None:
    """A commit of one store is heard of in another one; nobody listens before somebody watches."""
    postgres_store.enlist("author")
    with closing(PostgresStore(postgres_url)) as other:
        assert listeners(postgres) == 0
        rung = threading.Event()
        end = other.watch(rung.set)
        assert rung.wait(PATIENCE_SECONDS)  # it listens: what was before may have been missed
        rung.clear()
        Author(postgres_store).write("a", "activate")
        assert rung.wait(PATIENCE_SECONDS)
        other.watch(lambda: None)
        assert listeners(postgres) == 1
        end()
        end()


def test_hints_are_of_others_alone(
    postgres_url: str, postgres_store: PostgresStore, postgres: PostgresServer
) -> None:
    """A store is not told of its own commits, nor whoever has ended watching of any."""
    postgres_store.enlist("author")
    ready, heard = threading.Event(), []
    end = postgres_store.watch(ready.set)
    assert ready.wait(PATIENCE_SECONDS)
    end()
    postgres_store.watch(lambda: heard.append("own"))
    with closing(PostgresStore(postgres_url)) as other:
        rung = threading.Event()
        other.watch(rung.set)
        assert rung.wait(PATIENCE_SECONDS)
        rung.clear()
        Author(postgres_store).write("a", "activate")
        assert rung.wait(PATIENCE_SECONDS)
    assert heard == []


def test_hints_are_sent_outside_of_commits(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer
) -> None:
    """Many commits in a while are one notification, which no commit waits for."""
    monkeypatch.setattr(hints, "PAUSE_SECONDS", PATIENCE_SECONDS)
    postgres_store.enlist("author")
    channel = channel_of(postgres_store._connections.sql.schema)
    with postgres.connect() as connection:
        connection.execute(f'LISTEN "{channel}"'.encode())
        author = Author(postgres_store)
        author.write("a", "activate")
        heard = list(connection.notifies(timeout=PATIENCE_SECONDS, stop_after=1))
        for _ in range(20):
            author.write("a", "touch")
        heard += connection.notifies(timeout=0)
    assert len(heard) == 1


def test_hints_survive_a_lost_connection(
    postgres_url: str,
    postgres_store: PostgresStore,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who listens listens again after its connection was ended, and is rung for what it missed."""
    monkeypatch.setattr(hints, "RETRY_SECONDS", 0.01)
    postgres_store.enlist("author")
    rung = threading.Event()
    postgres_store.watch(rung.set)
    assert rung.wait(PATIENCE_SECONDS)
    rung.clear()
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %%'"
    )
    assert rung.wait(PATIENCE_SECONDS)
    rung.clear()
    with closing(PostgresStore(postgres_url)) as other:
        other.enlist("other")
        Author(other, "other").write("a", "activate")
        assert rung.wait(PATIENCE_SECONDS)


def test_hints_are_not_kept_where_nobody_listens(
    postgres_store: PostgresStore, postgres: PostgresServer
) -> None:
    """A connection that hears what is meant for others, as one of a pooler may, keeps nothing."""
    with postgres_store._connections.link() as link:
        link.execute(b"LISTEN others")
        for _ in range(10):
            postgres.execute("NOTIFY others")
        link.execute(b"SELECT 1")
        assert not link._notifies_backlog
        link.execute(b"UNLISTEN others")


def test_hints_need_no_thread_to_commit(
    postgres_url: str, postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be had a commit is made and a watch refused; both go on the next time."""
    start, heard = threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name in {"session_fsm send", "session_fsm listen"}:
            raise RuntimeError("can't start new thread")
        start(thread)

    with closing(PostgresStore(postgres_url)) as store:
        store.enlist("author")
        author = Author(store)
        with monkeypatch.context() as few:
            few.setattr(threading.Thread, "start", refuse)
            author.write("a", "activate")
            with pytest.raises(RuntimeError):
                store.watch(lambda: pytest.fail("it was refused"))
        postgres_store.watch(heard.set)
        assert heard.wait(PATIENCE_SECONDS)
        heard.clear()
        author.write("a", "touch")
        assert heard.wait(PATIENCE_SECONDS)
        rung = threading.Event()
        store.watch(rung.set)
        assert rung.wait(PATIENCE_SECONDS)
    with closing(PostgresStore(postgres_url)) as store, monkeypatch.context() as few:
        few.setattr(threading.Thread, "start", refuse)
        store._hints.committed()


@pytest.mark.parametrize("wakened_by", ["a fork", "itself"])
def test_hints_listener_rests_until_it_hears(
    postgres_url: str,
    postgres_store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
    wakened_by: str,
) -> None:
    """A child by fork that closes the store wakes nobody, and who is wakened for nothing rests."""
    looks: list[object] = []

    class Selector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[Any]:
            looks.append(None)
            return list(super().select(timeout))

    monkeypatch.setattr(selectors, "DefaultSelector", Selector)
    rung = threading.Event()
    postgres_store.watch(rung.set)
    assert rung.wait(PATIENCE_SECONDS)
    rung.clear()
    if wakened_by == "itself":
        postgres_store._hints._waker.send(b"!")
    elif not (child := os.fork()):  # pragma: no cover - another process
        try:
            postgres_store.close()
        finally:
            os._exit(0)
    else:
        os.waitpid(child, 0)
    with closing(PostgresStore(postgres_url)) as other:
        other.enlist("other")
        Author(other, "other").write("a", "activate")
        assert rung.wait(PATIENCE_SECONDS)
    assert len(looks) < 20


def test_hints_failing_watchers_are_alone(
    postgres_url: str, postgres_store: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that raises is logged, and keeps nobody else from hearing."""
    rung = threading.Event()
    postgres_store.watch(lambda: 1 / 0)  # type: ignore[arg-type]
    postgres_store.watch(rung.set)
    with closing(PostgresStore(postgres_url)) as other:
        other.enlist("other")
        Author(other, "other").write("a", "activate")
        assert rung.wait(PATIENCE_SECONDS)
    postgres_store.close()
    assert "whoever watches has failed" in caplog.text
