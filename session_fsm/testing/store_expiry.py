"""The contract of stores, on items of tables with all else: steps, expiry and batches."""

from __future__ import annotations

from ..errors import ItemConflictError, RevisionConflictError
from ..items import Clear, Delete, Put
from ..stores.abc import SessionStore
from .authors import BEGINNING, END_OF_TIME, StoreRules, everything, refused, routes
from .store_items import find, seconds


class ItemTimeRules(StoreRules):
    """What is written with a step or in a batch, and what is there for a time."""

    # --- with steps -----------------------------------------------------------------------

    def test_store_writes_items_with_steps(self, store: SessionStore) -> None:
        """Steps and items are seen together; a session may write what it ends with."""
        author = self.author(store)
        author.write("a", "activate")
        author.write("a", "touch", writes=[Put("files", "k", 1), Put("files", "l", 2)])
        assert (find(store, "k"), find(store, "l"), store.tail("a")[0]) == ((1, 1), (2, 2), 3)
        stored = store.load("a")
        assert stored is not None
        way = [row.trigger for row in store.lifecycle.way_out(stored.state.status)]
        author.write("a", *way, writes=[Delete("files", "k"), Put("files", "l", "last")])
        assert (find(store, "k"), find(store, "l")) == (None, ("last", 3))
        assert store.check() == ()

    def test_store_undoes_steps_and_items_together(self, store: SessionStore) -> None:
        """Where a version or the revision is another one, neither steps nor items are written."""
        author = self.author(store)
        author.write("a", "activate")
        late = author.draft("a", "touch", writes=[Put("files", "late", 1)])
        author.write("a", "touch")
        before = everything(store)
        with refused(ItemConflictError):
            writes = [Put("files", "k", 1), Put("files", "l", 1, expected_version=7)]
            author.write("a", "touch", "go_idle", writes=writes)
        with refused(RevisionConflictError):
            store.commit(late)
        assert everything(store) == before
        author.write("a", "go_idle", writes=[Put("files", "k", 1)])
        assert find(store, "k") == (1, 1)

    # --- expiry ---------------------------------------------------------------------------

    def test_store_forgets_items_that_expired(self, store: SessionStore) -> None:
        """From its instant on an item is absent for reading, comparing, deleting and clearing."""
        author = self.author(store)
        author.write("a", "activate")
        author.put(
            "a",
            *(Put("files", key, key, ttl_seconds=10) for key in "klm"),
            Put("files", "stays", 1),
        )
        short, end = BEGINNING + seconds(9.999999), BEGINNING + seconds(10)
        assert find(store, "k", short) == ("k", 1)
        assert len(store.items("a", "files", 9, None, short)) == 4
        assert find(store, "k", end) is None
        assert [item.key for item in store.items("a", "files", 1, None, end)] == ["stays"]
        with refused(ItemConflictError) as caught:
            author.put("a", Put("files", "k", 1, expected_version=1), at=end)
        assert caught[0].found == 0
        assert author.put("a", Delete("files", "l"), at=end) == (0,)
        author.put("a", Put("files", "k", "new", expected_version=0), at=end)
        assert find(store, "k", END_OF_TIME) == ("new", 5)
        assert author.put("a", Clear("files"), at=end) == (2,)

    def test_store_drops_items_that_expired(self, store: SessionStore) -> None:
        """Expired items are removed, so many at a time; what lives, or was put anew, stays."""
        author = self.author(store)
        for session_id in ("a", "b"):
            author.write(session_id, "activate")
            for number in range(5):
                author.put(session_id, Put("files", f"k{number}", number, ttl_seconds=number + 1))
        author.put("a", Put("files", "k0", "anew"))
        author.put("b", Delete("files", "k0"))
        at = BEGINNING + seconds(3)
        before = store.items("a", "files", 9, None, at)
        dropped = [store.drop_expired_items(at, 3) for _ in range(3)]
        assert dropped == [3, 1, 0]
        assert store.items("a", "files", 9, None, at) == before
        left = [item.key for item in store.items("a", "files", 9, None, BEGINNING)]
        assert left == ["k0", "k3", "k4"]
        assert store.drop_expired_items(END_OF_TIME, 100) == 4
        assert find(store, "k0") == ("anew", 6)

    # --- batches --------------------------------------------------------------------------

    def test_store_keeps_items_of_a_batch(self, store: SessionStore) -> None:
        """Items of a batch are seen inside at once, a refused write alone is undone, all stay."""
        author = self.author(store)
        with store.batch():
            author.write("a", "activate")
            author.put("a", Put("files", "k", 1))
            with refused(ItemConflictError):
                author.put("a", Put("files", "l", 1), Put("files", "k", 2, expected_version=9))
            author.put("a", Put("files", "k", 3, expected_version=1))
            inside = everything(store)
        assert everything(store) == inside
        assert (find(store, "k"), find(store, "l")) == ((3, 2), None)

    def test_store_undoes_items_of_a_batch(self, store: SessionStore) -> None:
        """An exception undoes puts, deletes, clears, versions, expiry and burials alike."""
        author = self.author(store)
        for session_id in ("a", "b", "c"):
            author.write(session_id)
            author.put(session_id, Put("files", "k", session_id), Put("notes", "n", 1))
            author.put(session_id, Put("files", "short", 1, ttl_seconds=1))
        author.write("c", *routes(store.lifecycle)[store.lifecycle.final[0]])
        before = everything(store)
        with refused(ZeroDivisionError), store.batch():
            author.put("a", Put("files", "k", 2), Put("files", "new", 3), Delete("notes", "n"))
            author.put("b", Clear("files"), Put("files", "k", 4, ttl_seconds=1))
            assert store.drop_expired_items(END_OF_TIME, 2) == 2
            author.bury("c")
            author.write("c")
            author.put("c", Put("files", "k", 5, expected_version=0))
            author.write("new")
            author.put("new", Put("files", "k", 6))
            assert everything(store) != before
            raise ZeroDivisionError
        assert everything(store) == before
        assert author.put("a", Put("notes", "m", 1))[0].version == 4
        assert store.drop_expired_items(END_OF_TIME, 9) == 3
        author.write("new")
        author.put("new", Put("files", "k", 1, expected_version=0))
        assert store.check() == ()
