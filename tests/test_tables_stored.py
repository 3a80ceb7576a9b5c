"""Tables in the SQLite store: encrypted where sessions are, checked by the database, looked up."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from encrypting import BOTH, OTHER_RING, RING, START, files_with, key_rows, managed, raw, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from managing import begin, end, wait_until

from session_fsm import (
    SESSION_LIFECYCLE,
    CorruptRecordError,
    KeyMissingError,
    LifecycleError,
    Put,
    SchemaVersionError,
    SessionManager,
    StoreUnavailableError,
)
from session_fsm.items import ItemWrites
from session_fsm.stores import SqliteStore
from session_fsm.stores.sqlite_tables import _ONE, _PAGE
from session_fsm.testing import ManualClock, json_objects

VALUE = "value-91c3"
FOREVER = {"timeout_minutes": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "sessions.db"


@pytest.fixture
def written(path: Path) -> Path:
    """A file with an encrypted session `a`, whose tables hold three items, and another one `b`."""
    with managed(path) as manager:
        for session_id in ("a", "b"):
            manager.create(session_id, config=FOREVER)
            manager.table(session_id, "files").put("k", {"secret": VALUE})
        manager.table("a", "files").put("l", VALUE)
        manager.table("a", "notes").put("k", VALUE)
    return path


def problems(path: Path, keyring: Any = RING) -> tuple[str, ...]:
    """Return what `verify` finds."""
    with managed(path, keyring) as manager:
        return manager.verify().problems


# --- encryption ------------------------------------------------------------------------------


def test_tables_stored_encrypted_are_read_with_the_key(written: Path) -> None:
    """With the key every item is told; with none, or another, it is said which key it needs."""
    assert files_with(written.parent, VALUE.encode()) == set()
    with managed(written) as manager:
        assert manager.table("a", "files").get("k") == {"secret": VALUE}
    for ring in (None, OTHER_RING):
        with managed(written, ring) as manager:
            table = manager.table("a", "files")
            for read in (lambda: table.get("k"), table.items):  # noqa: B023 - called in the loop
                with pytest.raises(KeyMissingError) as caught:
                    read()
                assert caught.value.key_id == RING.key_id
            for write in (lambda: table.put("k", 1), table.clear):  # noqa: B023
                with pytest.raises(KeyMissingError):
                    write()
            assert manager.verify().ok
            assert table.find("nothing") is None
    with managed(written) as manager:
        assert manager.table("a", "files").get("k") == {"secret": VALUE}


def test_tables_stored_encrypted_are_not_written_plain(written: Path) -> None:
    """A store without a keyring refuses to put a plain item into an encrypted session."""
    writes = ItemWrites(START, (Put("files", "k", VALUE),))
    with closing(SqliteStore(written)) as store:
        with pytest.raises(KeyMissingError) as caught:
            store.enlist("author")
            store.write_items("a", 2, writes, "op", "author")
        assert caught.value.key_id == RING.key_id
    assert files_with(written.parent, VALUE.encode()) == set()


def test_tables_stored_encrypted_survive_a_new_key(written: Path) -> None:
    """A new key of the user's wraps the sessions' keys; items are as they were, and readable."""
    before = rows(written, "SELECT * FROM session_item ORDER BY rowid")
    with managed(written, BOTH) as manager:
        assert isinstance(manager.store, SqliteStore)
        assert manager.store.rekey().rewrapped == 2
    assert rows(written, "SELECT * FROM session_item ORDER BY rowid") == before
    with managed(written, OTHER_RING) as manager:
        assert manager.table("a", "files").get("k") == {"secret": VALUE}


def test_tables_stored_plain_until_the_session_has_a_key(path: Path) -> None:
    """A session that was plain gets its key with its next step; items are encrypted from then."""
    with managed(path, None) as manager:
        manager.create("a", config=FOREVER)
        manager.table("a", "files").put("old", "plain-1")
    with managed(path) as manager:
        table = manager.table("a", "files")
        table.put("still", "plain-2")
        assert key_rows(path) == {}
        manager.fire("a", "touch", writes=[Put("files", "with", VALUE)])
        table.put("then", VALUE)
        assert [item.value for item in table.items()] == ["plain-1", "plain-2", VALUE, VALUE]
        assert manager.verify().ok
    assert files_with(path.parent, VALUE.encode()) == set()
    assert files_with(path.parent, b"plain-2") == {"sessions.db"}


def test_tables_stored_encrypted_are_unreadable_once_purged(written: Path) -> None:
    """With a purged session its items and the key that opens them are gone."""
    clock = ManualClock(START)
    with managed(written, clock=clock) as manager:
        manager.terminate("a")
        clock.advance(1)
        assert manager.purge(ended_before=clock.now()) == 1
    assert rows(written, "SELECT session_id FROM session_item") == [("b",)]
    assert rows(written, "SELECT * FROM session_item_version") == [("b", 1)]
    assert set(key_rows(written)) == {"b"}


MOVED = {
    "another session": "UPDATE session_item SET body = (SELECT body FROM session_item"
    " WHERE session_id = 'b') WHERE session_id = 'a' AND key = 'k' AND table_name = 'files'",
    "another key": "UPDATE session_item SET body = (SELECT body FROM session_item"
    " WHERE key = 'l') WHERE session_id = 'a' AND key = 'k' AND table_name = 'files'",
    "another table": "UPDATE session_item SET body = (SELECT body FROM session_item"
    " WHERE table_name = 'notes') WHERE session_id = 'a' AND key = 'k' AND table_name = 'files'",
    "another version": "UPDATE session_item SET version = 2 WHERE session_id = 'a' AND key = 'k'"
    " AND table_name = 'files'",
    "the text": "UPDATE session_item SET body = CAST(body || 'A' AS BLOB) WHERE session_id = 'a'"
    " AND key = 'k' AND table_name = 'files'",
    "the instant": "UPDATE session_item SET updated_at = 'soon' WHERE session_id = 'a'"
    " AND key = 'k' AND table_name = 'files'",
    "its encryption": "UPDATE session_item SET encryption = NULL WHERE session_id = 'a'"
    " AND key = 'k' AND table_name = 'files'",
}


@pytest.mark.parametrize("damage", MOVED)
def test_tables_stored_tell_of_damage(written: Path, damage: str) -> None:
    """An item that was changed, or moved from elsewhere, is named, and never taken for absent."""
    with raw(written) as connection:
        assert connection.execute(MOVED[damage]).rowcount == 1
    with managed(written) as manager:
        table = manager.table("a", "files")
        for read in (lambda: table.get("k"), table.items):
            with pytest.raises(CorruptRecordError) as caught:
                read()
            assert caught.value.record == "item 'k' in table 'files' of session 'a'"
        assert table.get("l") == VALUE
        assert manager.table("a", "notes").get("k") == VALUE
    [problem] = problems(written)
    assert problem.startswith("item 'k' in table 'files' of session 'a' can't be read")


def test_tables_stored_in_a_newer_format_are_not_guessed_at(written: Path) -> None:
    """An item that is encrypted in a way that is not known here is told as such."""
    with raw(written) as connection:
        connection.execute("UPDATE session_item SET encryption = 2 WHERE key = 'l'")
    with managed(written) as manager, pytest.raises(SchemaVersionError, match="2 of what item 'l'"):
        manager.table("a", "files").get("l")
    assert len(problems(written)) == 1


# --- what the file says, and what it lets happen ---------------------------------------------


def test_tables_stored_without_a_session_are_told(written: Path) -> None:
    """Verify names items of sessions that are not there, and versions that were never given."""
    assert problems(written) == ()
    with raw(written) as connection:
        connection.execute("UPDATE session_item SET session_id = 'lost' WHERE session_id = 'b'")
        connection.execute("UPDATE session_item_version SET version = 2 WHERE session_id = 'a'")
        connection.execute("UPDATE session_item SET lifecycle = 'other' WHERE key = 'l'")
    found = problems(written)
    assert any("session 'lost': the session is not stored" in each for each in found)
    assert any("version 3 was not given yet" in each for each in found)
    with raw(written) as connection:
        connection.execute("DELETE FROM session_item_version")
        connection.execute("UPDATE session_item SET lifecycle = 'session'")
    assert len(problems(written)) == 4


BAD_STATEMENTS = {
    "of no session": "INSERT INTO session_item SELECT 'lost', table_name, key, lifecycle, version,"
    " expires_at, updated_at, encryption, body FROM session_item WHERE session_id = 'a'",
    "of another lifecycle": "INSERT INTO session_item SELECT session_id, table_name, 'new',"
    " 'other', version, expires_at, updated_at, encryption, body FROM session_item",
    "of an ended session": "INSERT INTO session_item VALUES"
    " ('ended', 't', 'k', 'session', 1, NULL, '', NULL, x'31')",
    "of an old version": "INSERT INTO session_item VALUES"
    " ('a', 't', 'k', 'session', 1, NULL, '', NULL, x'31')",
    "changed": "UPDATE session_item SET body = x'31'",
    "renewed": "UPDATE session_item SET expires_at = NULL",
    "version back": "UPDATE session_item_version SET version = version - 1",
    "version ahead": "UPDATE session_item_version SET version = version + 2",
    "version of another": "UPDATE session_item_version SET session_id = 'b', version = version + 1",
    "versions anew": "INSERT OR REPLACE INTO session_item_version VALUES ('a', 1)",
    "versions from 5": "INSERT INTO session_item_version VALUES ('ended', 5)",
    "versions forgotten": "DELETE FROM session_item_version",
}


@pytest.mark.parametrize("statement", BAD_STATEMENTS)
def test_tables_stored_are_kept_by_the_database(path: Path, statement: str) -> None:
    """Whoever writes into the file, no item is of no live session, or of a version had before."""
    with SessionManager(f"sqlite:///{path}") as manager:
        manager.create("ended")
        manager.create("a")
        manager.table("ended", "t").put("k", 1)
        for value in range(3):
            manager.table("a", "files").put("k", value)
        manager.terminate("ended")
    with closing(sqlite3.connect(path)) as connection:
        before = list(connection.iterdump())
        connection.execute("DELETE FROM session_item WHERE session_id = 'ended'")
        with pytest.raises(sqlite3.IntegrityError, match="session_fsm: "):
            connection.execute(BAD_STATEMENTS[statement])
        connection.rollback()
        assert list(connection.iterdump()) == before


def test_tables_stored_are_each_of_one_lifecycle(path: Path) -> None:
    """A manager of another lifecycle in the same file reads, writes and sweeps none of them."""
    other = SESSION_LIFECYCLE.extend(name="other")
    clock = ManualClock(START)
    with (
        closing(SqliteStore(path)) as store,
        closing(SqliteStore(path, other)) as foreign,
        SessionManager(store, clock=clock) as manager,
        SessionManager(foreign, lifecycle=other, clock=clock) as stranger,
    ):
        manager.create("a", config=FOREVER)
        manager.table("a", "files").put("k", 1, ttl_seconds=1)
        table = stranger.table("a", "files")
        for act in (lambda: table.get("k"), table.items, table.clear):
            with pytest.raises(LifecycleError, match="runs in the lifecycle 'session'"):
                act()
        clock.advance(5)
        stranger.sweep()
        assert rows(path, "SELECT count(*) FROM session_item") == [(1,)]
        manager.sweep()
        assert rows(path, "SELECT count(*) FROM session_item") == [(0,)]


def test_tables_stored_are_looked_up(written: Path) -> None:
    """An item and a page are found by an index, in its order; what has expired, by another one."""
    told = dict.fromkeys(("id", "table", "key", "at", "after"), "") | {"limit": 3}
    with closing(sqlite3.connect(written)) as connection:
        for query in (_ONE, _PAGE):
            named = {name: value for name, value in told.items() if f":{name}" in query}
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", named)]
            assert any(
                "SEARCH session_item USING INDEX sqlite_autoindex_session_item_1" in step
                for step in plan
            ), plan
            assert not any(step.startswith("SCAN session") for step in plan), plan
            assert not any("TEMP B-TREE" in step for step in plan), plan


def test_tables_stored_cost_a_sweep_nothing_where_none_expire(written: Path) -> None:
    """A sweep of a store without items that have expired waits for no writer."""
    clock = ManualClock(START)
    with (
        closing(SqliteStore(written, keyring=RING, busy_timeout_seconds=0.01)) as store,
        SessionManager(store, clock=clock) as manager,
        closing(sqlite3.connect(written, isolation_level=None)) as other,
    ):
        manager.table("a", "files").put("short", 1, ttl_seconds=5)
        other.execute("BEGIN IMMEDIATE")
        assert manager.sweep().fired == ()
        clock.advance(5)
        with pytest.raises(StoreUnavailableError, match="locked"):
            manager.sweep()
        other.execute("ROLLBACK")
        manager.sweep()
        assert rows(written, "SELECT count(*) FROM session_item WHERE key = 'short'") == [(0,)]


def test_tables_stored_share_a_transaction(written: Path) -> None:
    """Threads that put at the same time, beside a move, write durably together."""
    with managed(written) as manager:
        assert isinstance(manager.store, SqliteStore)
        writer = manager.store._connections._writer
        statements: list[str] = []
        writer.connection.set_trace_callback(statements.append)
        with writer._queue.alone():
            puts = [begin(manager.table(each, "files").put, "new", each) for each in "ab"]
            wait_until(lambda: len(writer._queue._waiting) == 2)
        assert [item.value for item in end(*puts)] == ["a", "b"]
        writer.connection.set_trace_callback(None)
        assert statements.count("COMMIT") == 1
        manager.table("a", "files").put("new", 2)


# --- values ----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(values=st.lists(json_objects(), min_size=1, max_size=5))
def test_tables_stored_values_are_told_exactly(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, Any]]
) -> None:
    """Whatever JSON is put, plain or encrypted, is told as it was."""
    directory = tmp_path_factory.mktemp("tables")
    for name, ring in (("plain.db", None), ("encrypted.db", RING)):
        with managed(directory / name, ring) as manager:
            manager.create("a")
            table = manager.table("a", "files")
            for number, value in enumerate(values):
                table.put(f"{number:03}", value)
                table.put(f"{number:03} list", [value, *value.values()])
            found = [item.value for item in table.items()]
            expected = [each for value in values for each in (value, [value, *value.values()])]
            assert repr(found) == repr(expected)
