"""The feed of a PostgreSQL store tells every commit once, in order, however transactions end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from postgres_server import PostgresServer

from session_fsm.stores import PostgresStore
from session_fsm.stores import postgres_feed as feeding
from session_fsm.stores.postgres_sql import Sql
from session_fsm.testing.authors import Author
from session_fsm.testing.store_batches import in_threads


@pytest.fixture
def author(postgres_store: PostgresStore) -> Author:
    """Somebody who lives, and writes."""
    postgres_store.enlist("author")
    return Author(postgres_store)


@pytest.fixture
def slow(postgres: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose transaction ends when the test says so."""
    with closing(psycopg.connect(postgres.url())) as connection:
        yield connection


def copy_event(link: psycopg.Connection[Any], sql: Sql, session_id: str, revision: int) -> None:
    """Append an event as it is, under another id; nothing is committed."""
    link.execute(
        sql(
            "INSERT INTO {s}.session_event (session_id, revision, at, body, digest, operation_id)"
            " SELECT 'late', revision, at, body, digest, operation_id FROM {s}.session_event"
            " WHERE session_id = %s AND revision = %s"
        ),
        (session_id, revision),
    )


def positions(store: PostgresStore) -> list[int | None]:
    """Return the positions that were given, by the numbers that the sequence gave before."""
    rows = store._connections.read(
        lambda link: link.execute(
            store._connections.sql("SELECT position FROM {s}.session_event ORDER BY seq")
        ).fetchall()
    )
    return [position for (position,) in rows]


def test_feed_gives_later_positions_to_later_commits(
    author: Author, postgres_store: PostgresStore, slow: psycopg.Connection[Any]
) -> None:
    """An event whose number came first and whose commit came last has the last position."""
    store = postgres_store
    author.write("a", "activate")
    copy_event(slow, store._connections.sql, "a", 1)  # takes the next number of the sequence
    author.write("a", "touch")
    told = store.feed(0, 100)
    assert [each.position for each in told.events] == [1, 2, 3]
    slow.commit()
    assert positions(store) == [1, 2, None, 3]
    with pytest.raises(Exception, match="late"):
        store.feed(told.position, 100)  # it is another session's event, and is told all the same
    assert positions(store) == [1, 2, 4, 3]
    assert store.feed(4, 0).newest == 4


def test_feed_leaves_no_hole_for_what_was_undone(
    author: Author, postgres_store: PostgresStore, slow: psycopg.Connection[Any]
) -> None:
    """Numbers of the sequence that no commit used are none of the feed's."""
    author.write("a", "activate")
    for _ in range(3):
        copy_event(slow, postgres_store._connections.sql, "a", 1)
        slow.rollback()
    author.write("a", "touch")
    assert [each.position for each in postgres_store.feed(0, 100).events] == [1, 2, 3]


def test_feed_numbers_more_than_fits_one_transaction(
    author: Author, postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for positions gets them in pieces: a page once it is full, all when asked."""
    monkeypatch.setattr(feeding, "NUMBERED_AT_ONCE", 3)
    monkeypatch.setattr(feeding.number, "__defaults__", (3,))
    author.write("a", "activate", *["touch"] * 9)
    assert len(postgres_store.feed(0, 2).events) == 2
    assert positions(postgres_store).count(None) == 8
    assert postgres_store.feed(0, 0).newest == 11
    assert positions(postgres_store) == list(range(1, 12))


def test_feed_numbers_before_it_forgets(author: Author, postgres_store: PostgresStore) -> None:
    """What nobody has read yet when it is removed is known to be missing."""
    author.write("a", "activate", "touch", "touch", "touch")
    author.compact("a", keep=1)
    assert postgres_store.feed(0, 100).removed == 4
    author.write("b", "activate", "terminate", "finish")
    author.bury("b")
    told = postgres_store.feed(0, 100)
    assert (told.removed, told.newest) == (9, 10)
    assert [each.kind for each in told.events] == ["changed", "purged"]


def test_feed_is_numbered_once_by_all_who_read(author: Author, postgres_url: str) -> None:
    """Readers of many stores at once are told the same, with no gap and no event twice."""
    rounds, readers = 20, 3
    author.write("a", "activate")

    def work(each: int, barrier: threading.Barrier) -> list[tuple[int, str, int]]:
        barrier.wait()
        met: list[tuple[int, str, int]] = []
        if each == readers:
            for _ in range(rounds):
                author.write("a", "touch", "touch")
            return met
        with closing(PostgresStore(postgres_url)) as store:
            position = 0
            while len(met) < 2 + 2 * rounds:
                page = store.feed(position, 7)
                met += [(event.position, event.session_id, event.revision) for event in page.events]
                position = page.position
        return met

    expected = [(number, "a", number) for number in range(1, 2 * rounds + 3)]
    assert in_threads(readers + 1, work) == [expected] * readers + [[]]
