"""What is done on a heartbeat is not left to readers, holds nobody up, and asks for no right."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from managing import wait_until
from postgres_server import PostgresServer

from session_fsm.stores import PostgresStore
from session_fsm.stores import postgres_tending as tending
from session_fsm.stores.postgres_counts import KEPT_APART
from session_fsm.stores.postgres_leases import Leases
from session_fsm.testing.authors import Author

Execute = Callable[..., psycopg.Cursor[Any]]


@pytest.fixture
def sql(postgres: PostgresServer, postgres_store: PostgresStore) -> Iterator[Execute]:
    """Executes as the superuser, with the schema in the place of {s}."""
    with closing(postgres.connect()) as connection:
        yield lambda text, *told: connection.execute(postgres_store._sql(text), told or None)


def unnumbered(sql: Execute) -> int:
    """How many events have no position."""
    rows = sql("SELECT count(*) FROM {s}.session_event WHERE position IS NULL").fetchall()
    number: int = rows[0][0]
    return number


def pieces(sql: Execute) -> int:
    """How many rows the counts are made of."""
    number: int = sql("SELECT count(*) FROM {s}.session_count").fetchall()[0][0]
    return number


def add_pieces(sql: Execute) -> None:
    """Have the counts in more pieces than are kept, of which each other undoes one."""
    add = (
        "INSERT INTO {s}.session_count (lifecycle, status, sessions)"
        " SELECT 'session', 'active', 1 - 2 * (n %% 2) FROM generate_series(1, %s) AS given (n)"
    )
    sql(add, 2 * KEPT_APART)


@pytest.fixture
def author(postgres_store: PostgresStore) -> Author:
    """Somebody who lives, and has written what nobody has read."""
    postgres_store.enlist("author")
    author = Author(postgres_store)
    author.write("a", "activate", "touch", "touch")
    return author


def test_postgres_tending_comes_with_the_heartbeat(
    sql: Execute, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon after a heartbeat every event has its position, and counts are few rows."""
    monkeypatch.setattr(Leases, "beat_seconds", 0.01)
    with closing(PostgresStore(postgres_url)) as store:
        store.enlist("author")
        Author(store).write("a", "activate", "touch", "touch")
        add_pieces(sql)
        wait_until(lambda: not unnumbered(sql) and pieces(sql) < KEPT_APART)
        assert [event.position for event in store.feed(0, 9).events] == [1, 2, 3, 4]
        assert store.counts() == {"active": 1}
        assert store.check() == ()


def test_postgres_tending_needs_no_thread(
    sql: Execute, author: Author, postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be had nobody is told so; it is done with the next heartbeat."""
    tend = postgres_store._tending
    with monkeypatch.context() as few:
        few.setattr(threading.Thread, "start", _no_thread)
        tend.nudge()
        tend.close()
    other = type(tend)(postgres_store._beats)
    with monkeypatch.context() as few:
        few.setattr(threading.Thread, "start", _no_thread)
        other.nudge()
    other.nudge()
    wait_until(lambda: not unnumbered(sql))
    other.close()


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_postgres_tending_numbers_piece_by_piece(
    sql: Execute, author: Author, postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many events wait, no transaction is long."""
    monkeypatch.setattr(tending, "AT_ONCE", 1)
    sizes: list[int] = []
    write = postgres_store._beats.write

    def noting(work: Callable[..., int]) -> int:
        sizes.append(write(work))
        return sizes[-1]

    monkeypatch.setattr(postgres_store._beats, "write", noting)
    assert postgres_store._tending.tend()
    assert sizes == [1, 1, 1, 1]
    assert unnumbered(sql) == 0


def test_postgres_tending_writes_nothing_for_nothing(
    author: Author, postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing waits no transaction is begun."""
    assert postgres_store._tending.tend()
    monkeypatch.delattr(type(postgres_store._beats), "write")
    assert postgres_store._tending.tend()


def test_postgres_tending_holds_up_no_heartbeat(
    postgres: PostgresServer, sql: Execute, author: Author, postgres_store: PostgresStore
) -> None:
    """Leases are renewed while what is tended waits for a lock, and it is done afterwards."""
    waits = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        " AND query NOT LIKE '%%pg_stat_activity%%'"
    )
    like = f"%{postgres_store._sql.schema}%"
    with closing(postgres.connect()) as other:
        with other.transaction():
            other.execute(postgres_store._sql("LOCK {s}.session_event"))
            postgres_store._tending.nudge()
            wait_until(lambda: bool(postgres.execute(waits, [like])))
            assert postgres_store._leases.renew()
            postgres_store._tending.nudge()
        wait_until(lambda: not unnumbered(sql))


def test_postgres_tending_leaves_it_to_who_does_it(
    postgres: PostgresServer, sql: Execute, author: Author, postgres_store: PostgresStore
) -> None:
    """Where another store numbers already, nobody queues up behind it."""
    with closing(postgres.connect()) as other, other.transaction():
        other.execute(postgres_store._sql("SELECT 1 FROM {s}.feed FOR UPDATE"))
        assert postgres_store._tending.tend()
        assert unnumbered(sql) == 4
    assert postgres_store._tending.tend()
    assert unnumbered(sql) == 0


def test_postgres_tending_is_silent_without_the_right(
    postgres: PostgresServer,
    sql: Execute,
    author: Author,
    postgres_store: PostgresStore,
    postgres_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A role that may not number or put together is told nothing, and does not try again."""
    role = f"{postgres_store._sql.schema}_role"
    sql(f"CREATE ROLE {role} LOGIN")
    sql(f"GRANT USAGE ON SCHEMA {{s}} TO {role}")
    sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA {{s}} TO {role}")
    sql(f"GRANT INSERT, UPDATE, DELETE ON {{s}}.owner TO {role}")
    add_pieces(sql)
    try:
        with (
            caplog.at_level(logging.DEBUG, "session_fsm"),
            closing(PostgresStore(postgres_url.replace("postgres@", f"{role}@"))) as store,
        ):
            store.enlist("role")
            before = pieces(sql)
            assert store._leases.renew()
            assert store._tending.tend()
            assert (unnumbered(sql), pieces(sql)) == (4, before)
            assert not store._tending._duties
            assert store.counts() == {"active": 1}
        assert not caplog.records
    finally:
        sql(f"DROP OWNED BY {role}")
        sql(f"DROP ROLE {role}")


def test_postgres_tending_leaves_what_is_published(
    sql: Execute, author: Author, postgres_store: PostgresStore
) -> None:
    """Counts that may not be put together, as they are published, are right all the same."""
    publication = f"{postgres_store._sql.schema}_published"
    add_pieces(sql)
    before = pieces(sql)
    sql(f"CREATE PUBLICATION {publication} FOR TABLE {{s}}.session_count")
    try:
        assert postgres_store.counts() == {"active": 1}
        assert not postgres_store._tending.tend()
        assert (unnumbered(sql), pieces(sql)) == (0, before)
        sql("ALTER TABLE {s}.session_count REPLICA IDENTITY FULL")
        assert postgres_store._tending.tend()
        assert pieces(sql) < KEPT_APART
        assert postgres_store.counts() == {"active": 1}
        assert postgres_store.check() == ()
    finally:
        sql(f"DROP PUBLICATION {publication}")


def test_postgres_tending_rests_after_a_failure(
    sql: Execute, author: Author, postgres_store: PostgresStore
) -> None:
    """What goes wrong is tried again more and more rarely, until it goes well."""
    tend, calls = postgres_store._tending, []
    sql("ALTER TABLE {s}.feed RENAME TO fed")
    tend.nudge()
    wait_until(lambda: tend._rest == 1)
    tend.nudge()
    assert tend._rest == 0
    tend.nudge()
    wait_until(lambda: tend._rest == 3)
    sql("ALTER TABLE {s}.fed RENAME TO feed")
    while unnumbered(sql):
        tend.nudge()
        calls.append(1)
    wait_until(lambda: tend._rest == 0)
    assert len(calls) > 3
