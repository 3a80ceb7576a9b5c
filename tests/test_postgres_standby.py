"""A PostgreSQL server that only reads for now: one that stands by, or whose disk is full."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from managing import Seconds, Worker, await_event
from postgres_server import PostgresServer

from session_fsm import FencedError, SessionConfig, SessionManager, StoreUnavailableError
from session_fsm.stores import PostgresStore, postgres_hints
from session_fsm.stores.postgres_connection import Connections
from session_fsm.stores.postgres_newcomers import Newcomer
from session_fsm.testing.authors import Author

LEASE_SECONDS = 30.0
REFUSE = """
CREATE FUNCTION {s}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full';
END
$$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {s}.owner
    FOR EACH ROW EXECUTE FUNCTION {s}.refuse();
CREATE TRIGGER refuse BEFORE UPDATE ON {s}.feed
    FOR EACH ROW EXECUTE FUNCTION {s}.refuse();
"""
ALLOW = "DROP FUNCTION {s}.refuse CASCADE"


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of one's own, which may be stopped."""
    server = PostgresServer()
    yield server
    server.remove()


def refusing(postgres: PostgresServer, store: PostgresStore) -> None:
    """Have a server take in nobody, and number nothing, as one does whose disk is full."""
    with closing(postgres.connect()) as link:
        link.execute(store._sql(REFUSE))


def allowing(postgres: PostgresServer, store: PostgresStore) -> None:
    """Have it work again."""
    with closing(postgres.connect()) as link:
        link.execute(store._sql(ALLOW))


def test_standby_that_is_promoted_is_written_to(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Managers that outlast their leases at a standby, or are opened there, go on at once after."""
    monkeypatch.setattr(postgres_hints, "REST_SECONDS", 0.01)
    monkeypatch.setattr(postgres_hints, "RETRY_SECONDS", 0.01)
    seconds, stopped = Seconds(), threading.Event()
    with closing(PostgresStore(server.url(), seconds=seconds)) as store:
        manager = SessionManager(store)
        config = SessionConfig(recovery="release")
        manager.create("a", config=config, start=lambda _: Worker(stopped.set))
        owner, before = manager._core.owner_id, manager.history("a")
        heard = threading.Event()
        store.watch(heard.set)
        await_event(heard)
        server.stand_by()
        seconds.passed += LEASE_SECONDS
        with pytest.raises((FencedError, StoreUnavailableError)):
            manager.touch("a")
        await_event(stopped)
        while manager._core.owner_id == owner:
            pass
        with closing(PostgresStore(server.url())) as other:
            late = SessionManager(other)
            for each in (manager, late):
                with pytest.raises(StoreUnavailableError, match="only reads for now"):
                    each.create("b")
                assert each.history("a") == before
                assert not each.store._leases.renew()  # type: ignore[attr-defined]
            assert not store._tending.tend()
            server.promote()
            for each, new in ((manager, "b"), (late, "c")):
                assert each.store._leases.renew()  # type: ignore[attr-defined]
                each.create(new)
            # Nobody could say that it is gone: others wait for the end of its lease.
            ended = "UPDATE {s}.owner SET expires_at = now() WHERE owner_id = %s"
            server.execute(store._sql(ended).decode(), [owner])
            assert manager.recover().released == ("a",)
            assert store._tending.tend()
            assert len(store._tending._duties) == 2
            heard.clear()
            late.touch("c")
            await_event(heard)
            late.close()
        manager.close()


def test_standby_newcomers_that_only_read_are_let_be(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A role that may not write is no owner once the server writes; others are, all the same."""
    PostgresStore(server.url()).close()
    for text in (
        "CREATE ROLE reader LOGIN",
        "GRANT USAGE ON SCHEMA session_fsm TO reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA session_fsm TO reader",
    ):
        server.execute(text)
    server.stand_by()
    with closing(PostgresStore(server.url(user="reader"))) as store:
        store.enlist("reader")
        store.enlist("other")
        assert not store._leases.renew()
        server.promote()
        server.execute("GRANT INSERT, UPDATE ON session_fsm.owner TO reader")
        server.execute(
            "CREATE POLICY one ON session_fsm.owner USING (true) WITH CHECK (owner_id <> 'reader')"
        )
        server.execute("ALTER TABLE session_fsm.owner ENABLE ROW LEVEL SECURITY")
        assert store._leases.renew()
        assert not store._leases.has("reader")
        assert store.is_alive("other")
    assert not [each for each in caplog.records if "not renewed" in each.message]


def test_standby_newcomers_wait_for_a_full_disk(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """Whom the server can't take in is refused until it can, and then lives."""
    store = postgres_store
    refusing(postgres, store)
    store.enlist("author")
    author = Author(store, "author")
    with pytest.raises(StoreUnavailableError, match="'author' is not known yet"):
        author.write("a", "activate")
    with pytest.raises(StoreUnavailableError, match="'author' is not known yet"):
        store.set_mark("m", b"")
    assert not store._leases.renew()
    allowing(postgres, store)
    assert store._leases.renew()
    assert store.is_alive("author")
    author.write("a", "activate")
    store.set_mark("m", b"")


def test_standby_newcomers_that_have_left_are_not_taken_in(
    postgres: PostgresServer, postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is dismissed before the server writes again is never known, not even in between."""
    store, leases = postgres_store, postgres_store._leases
    refusing(postgres, store)
    store.enlist("left")
    store.enlist("leaves")
    store.dismiss("left")
    allowing(postgres, store)
    ask = leases._newcomers.ask

    def dismissed_meanwhile(newcomer: Newcomer, connections: Connections) -> None:
        store.dismiss("leaves")
        ask(newcomer, connections)

    monkeypatch.setattr(leases._newcomers, "ask", dismissed_meanwhile)
    assert leases.renew()
    assert not store.is_alive("left")
    assert not store.is_alive("leaves")
    assert not leases.has("leaves")


def test_standby_newcomers_take_nobody_elses_name(
    postgres: PostgresServer, postgres_store: PostgresStore, postgres_url: str
) -> None:
    """A newcomer whose name another one has by then waits until that has died, and it alone."""
    store = postgres_store
    with closing(PostgresStore(postgres_url)) as other:
        refusing(postgres, store)
        store.enlist("author")
        store.enlist("free")
        allowing(postgres, store)
        other.enlist("author")
        assert not store._leases.renew()
        Author(store, "free").write("b", "activate")
        with pytest.raises(StoreUnavailableError, match="not known yet"):
            Author(store, "author").write("a", "activate")
        Author(other, "author").write("a", "activate")
        other.dismiss("author")
        assert store._leases.renew()
        Author(store, "author").write("a", "touch")


def test_standby_feed_tells_what_has_positions(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """Where no event can be numbered for now, those that are get told; the others later."""
    store = postgres_store
    store.enlist("author")
    author = Author(store, "author")
    author.write("a", "activate")
    told = store.feed(0, 10).events
    author.write("a", "touch")
    refusing(postgres, store)
    assert store.feed(0, 10).events == told
    allowing(postgres, store)
    assert len(store.feed(0, 10).events) == len(told) + 1
