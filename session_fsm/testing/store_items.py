"""The contract of stores, on tables of a session: their items, and the versions of these."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

from ..errors import (
    ItemConflictError,
    RevisionConflictError,
    SessionNotFoundError,
)
from ..items import Clear, Delete, Item, Put
from ..jsontext import dump_json
from ..jsonvalue import MAX_INTEGER, MIN_INTEGER
from ..stores.abc import SessionStore
from .authors import BEGINNING, END_OF_TIME, Author, StoreRules, everything, refused, routes
from .store_batches import in_threads

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -0.0,
    1.0,
    1,
    MIN_INTEGER,
    MAX_INTEGER,
    2.5e-308,
    "",
    "text \u00e9 \U0001f600 \u2028 \\ \" '",
    [],
    {},
    {"a": [1, 1.0, True, {"b": None}]},
    [[[]], {"": {}}],
    {"encrypted": {"format": 1, "fields": {"metadata": "x"}}},
)
"""One of each kind of value, and those that are easily taken for another one."""
KEYS = ("a", "b", "Z", "é", "\uffee", "\U0001f600", "a b", "%", "_")


def seconds(number: float) -> timedelta:
    """Return a duration."""
    return timedelta(seconds=number)


def find(store: SessionStore, key: str, at: Any = BEGINNING, session_id: str = "a") -> Any:
    """Return the value and the version of an item of the table `files`, or None."""
    item = store.item(session_id, "files", key, at)
    return None if item is None else (item.value, item.version)


class ItemRules(StoreRules):
    """What is kept by key within one session, and goes with it."""

    # --- values and keys ------------------------------------------------------------------

    def test_store_keeps_items_of_each_kind(self, store: SessionStore) -> None:
        """Every JSON value is told as it was put, to the type, with its version and instants."""
        author = self.author(store)
        author.write("a", "activate")
        for number, value in enumerate(VALUES, 1):
            [put] = author.put("a", Put("files", "k", value, ttl_seconds=1.5))
            found = store.item("a", "files", "k", BEGINNING)
            assert isinstance(found, Item)
            assert found == put
            assert dump_json(found.value) == dump_json(value)
            assert (found.version, found.updated_at) == (number, BEGINNING)
            assert found.expires_at == BEGINNING + seconds(1.5)
            assert isinstance(put, Item)
            assert hash(found.value) == hash(put.value)  # nothing in it changes
        assert store.check() == ()

    def test_store_pages_items_by_key(self, store: SessionStore) -> None:
        """Items come in the order of their keys, page by page, whatever their order before."""
        author = self.author(store)
        author.write("a", "activate")
        author.put("a", *(Put("files", key, [key]) for key in reversed(KEYS)))
        for limit in (1, 3, len(KEYS), 100):
            found: list[str] = []
            while page := store.items("a", "files", limit, found[-1] if found else None, BEGINNING):
                assert len(page) <= limit
                assert [[item.key] for item in page] == [item.value for item in page]
                found += [item.key for item in page]
            assert found == sorted(KEYS)

    def test_store_keeps_tables_apart(self, store: SessionStore) -> None:
        """A key is one of its session and its table: no other one sees or changes its item."""
        author = self.author(store)
        for session_id in ("a", "b"):
            author.write(session_id, "activate")
            for table in ("files", "notes"):
                author.put(session_id, Put(table, "k", [session_id, table]))
        author.put("a", Put("files", "k", "new"), Delete("notes", "k"))
        author.put("b", Clear("files"))
        told = {
            (session_id, table): [item.value for item in found]
            for session_id in ("a", "b")
            for table in ("files", "notes")
            if (found := store.items(session_id, table, 9, None, BEGINNING))
        }
        assert told == {("a", "files"): ["new"], ("b", "notes"): [["b", "notes"]]}

    def test_store_tells_what_came_of_each_write(self, store: SessionStore) -> None:
        """A put tells its item, a delete and a clear how many there were; in order, each seen."""
        author = self.author(store)
        author.write("a", "activate")
        first, none, one, second, other, two, empty = author.put(
            "a",
            Put("files", "k", 1),
            Delete("files", "other"),
            Delete("files", "k", expected_version=1),
            Put("files", "k", 2, expected_version=0),
            Put("files", "l", 3),
            Clear("files"),
            Clear("files"),
        )
        assert [each.version for each in (first, second, other) if isinstance(each, Item)] == [
            1,
            2,
            3,
        ]
        assert (none, one, two, empty) == (0, 1, 2, 0)
        assert store.items("a", "files", 9, None, BEGINNING) == ()

    # --- versions -------------------------------------------------------------------------

    def test_store_never_gives_a_version_twice(self, store: SessionStore) -> None:
        """An item that was deleted and put again has a version that it never had."""
        author = self.author(store)
        author.write("a", "activate")
        versions = []
        for _ in range(3):
            [item] = author.put("a", Put("files", "k", "v"))
            assert isinstance(item, Item)
            versions.append(item.version)
            author.put("a", Delete("files", "k"))
            author.put("a", Put("files", "l", "v"), Clear("files"))
        assert versions == sorted(set(versions))

    def test_store_compares_before_it_sets(self, store: SessionStore) -> None:
        """A write to an item of another version, or absent, is refused with all beside it."""
        author = self.author(store)
        author.write("a", "activate")
        author.put("a", Put("files", "k", "first"))
        before = everything(store)
        for write, found in (
            (Put("files", "k", "x", expected_version=0), 1),
            (Put("files", "k", "x", expected_version=2), 1),
            (Delete("files", "k", expected_version=2), 1),
            (Delete("files", "k", expected_version=0), 1),
            (Put("files", "l", "x", expected_version=1), 0),
            (Delete("files", "l", expected_version=1), 0),
        ):
            with refused(ItemConflictError) as caught:
                author.put("a", Put("files", "new", 1), Clear("notes"), write)
            [error] = caught
            place = (error.session_id, error.table, error.key, error.expected, error.found)
            assert place == ("a", "files", write.key, write.expected_version, found)
            assert everything(store) == before
        author.put("a", Put("files", "k", "second", expected_version=1))
        author.put("a", Delete("files", "l", expected_version=0))
        assert find(store, "k") == ("second", 2)

    def test_store_lets_one_thread_win_each_version(self, store: SessionStore) -> None:
        """Of threads that set one item from one version exactly one does, round after round."""
        self.author(store).write("a", "activate")
        threads, rounds = 4, 6

        def compete(number: int, barrier: threading.Barrier) -> int:
            author = Author(store, f"thread {number}", self.config_of)
            won = 0
            for version in range(rounds):
                barrier.wait()
                with suppress(ItemConflictError):
                    author.put("a", Put("files", "k", number, expected_version=version))
                    won += 1
                barrier.wait()
            return won

        assert sum(in_threads(threads, compete)) == rounds
        item = store.item("a", "files", "k", BEGINNING)
        assert item is not None
        assert item.version == rounds

    # --- sessions -------------------------------------------------------------------------

    def test_store_writes_items_at_one_revision(self, store: SessionStore) -> None:
        """Items are written only while the session is where it was decided on, and leave it so."""
        author = self.author(store)
        author.write("a", "activate")
        before = everything(store)
        with refused(RevisionConflictError) as caught:
            author.put("a", Put("files", "k", 1), revision=1)
        assert (caught[0].expected, caught[0].found) == (1, 2)
        assert everything(store) == before
        author.put("a", Put("files", "k", 1), revision=2)
        assert {**everything(store), "items": 0} == {**before, "items": 0}

    def test_store_has_no_items_without_a_session(self, store: SessionStore) -> None:
        """Of a session that is not there, nothing is read or written."""
        author = self.author(store)
        write = Put("files", "k", 1)
        for session_id in ("nowhere", "é", "\ud800"):
            with refused(SessionNotFoundError):
                store.item(session_id, "files", "k", BEGINNING)
            with refused(SessionNotFoundError):
                store.items(session_id, "files", 9, None, BEGINNING)
            with refused(SessionNotFoundError):
                author.put(session_id, write, revision=1)
        author.write("a", "activate")
        assert store.item("a", "files", "\ud800", BEGINNING) is None
        assert store.items("a", "\ud800", 9, None, BEGINNING) == ()

    def test_store_buries_items_with_their_session(self, store: SessionStore) -> None:
        """The items go with their session; another life of its id has none, and versions from 1."""
        author = self.author(store)
        final = store.lifecycle.final[0]
        author.write("a")
        author.put("a", Put("files", "k", 1, ttl_seconds=1), Put("notes", "k", 2))
        author.write("a", *routes(store.lifecycle)[final])
        assert find(store, "k") == (1, 1)
        author.bury("a")
        with refused(SessionNotFoundError):
            store.item("a", "files", "k", BEGINNING)
        assert store.drop_expired_items(END_OF_TIME, 9) == 0
        author.write("a", "activate")
        assert everything(store)["items"]["a", "notes"] == []
        author.put("a", Put("files", "k", 3))
        assert find(store, "k") == (3, 1)
        assert store.check() == ()
