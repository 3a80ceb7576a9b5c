"""The contract of stores, on the feed: what was committed, by whomever, from a position on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from ..errors import RevisionConflictError
from ..session import PositionedEvent
from ..stores.abc import SessionStore
from ..stores.records import Fed
from .authors import Author, StoreRules, refused, routes
from .store_batches import in_threads

EVERYTHING = 1_000_000
"""More events than there are."""
KEPT = ("b", "d", "f", "h")
"""Ids of sessions that are kept, where a store keeps only some."""


class _UndoneError(Exception):
    """Ends a batch that is to be undone."""


def fed(store: SessionStore, session_id: str | None = None, *, after: int = 0) -> Fed:
    """Return all that the feed tells behind a position."""
    return store.feed(after, EVERYTHING, session_id)


def places(events: tuple[PositionedEvent, ...]) -> list[tuple[str, int, str]]:
    """Return session, revision and kind of each event."""
    return [(each.session_id, each.revision, each.kind) for each in events]


def in_pages(store: SessionStore, limit: int, session_id: str | None = None) -> Iterator[Fed]:
    """Yield the feed from its beginning, page by page; the last page is not full."""
    page = store.feed(0, limit, session_id)
    while len(page.events) == limit:
        yield page
        page = store.feed(page.position, limit, session_id)
    yield page


def ended(author: Author, session_id: str) -> None:
    """Write a session that has ended."""
    lifecycle = author.store.lifecycle
    author.write(session_id, *routes(lifecycle)[lifecycle.final[0]])


def agrees(store: SessionStore) -> None:
    """See that the feed tells the histories: each event once, in order, and nothing else."""
    told = fed(store)
    positions = [each.position for each in told.events]
    assert positions == sorted(set(positions))
    assert not positions or (positions[0] >= 1 and told.newest == positions[-1])
    for session_id in {each.session_id for each in told.events}:
        mine = tuple(each for each in told.events if each.session_id == session_id)
        assert fed(store, session_id).events == mine
        history = [event for _, event in store.history(session_id)]
        assert [each.event for each in mine] == [
            event for event in history if event.kind != "checkpoint"
        ]


class FeedRules(StoreRules):
    """What a store tells of its commits, whoever asks and from wherever on."""

    def test_store_feeds_nothing_before_the_first_commit(self, store: SessionStore) -> None:
        """A new store is before its first position."""
        assert fed(store) == Fed((), 0, 0, 0)
        assert fed(store, "b") == Fed((), 0, 0, 0)

    def test_store_feeds_commits_in_their_order(self, store: SessionStore) -> None:
        """Events come as they were committed, each with the position that it keeps."""
        author = self.author(store)
        author.write("d", "activate")
        author.write("b", "activate", "touch")
        author.write("d", "go_idle")
        told = fed(store)
        assert [each[:2] for each in places(told.events)] == [
            ("d", 1),
            ("d", 2),
            ("b", 1),
            ("b", 2),
            ("b", 3),
            ("d", 3),
        ]
        assert (told.position, told.removed) == (told.newest, 0)
        agrees(store)
        author.write("b", "touch")
        assert fed(store).events[:6] == told.events
        assert places(fed(store, after=told.position).events) == [("b", 4, "changed")]

    def test_store_feeds_pages_of_any_size(self, store: SessionStore) -> None:
        """Page by page it tells the same, of one session and of all."""
        author = self.author(store)
        for _ in range(3):
            for session_id in KEPT:
                author.write(session_id, *([] if store.load(session_id) else ["activate"]), "touch")
        newest = fed(store).newest
        for whose in (None, "d", "nobody"):
            whole = fed(store, whose)
            for limit in (1, 2, 3, 5, 100):
                pages = list(in_pages(store, limit, whose))
                assert tuple(each for page in pages for each in page.events) == whole.events
                assert all(len(page.events) == limit for page in pages[:-1])
                assert pages[-1].position == newest
        none = store.feed(2, 0)
        assert (none.events, none.newest) == ((), newest)

    def test_store_feeds_a_long_history(self, store: SessionStore) -> None:
        """However many events there are, they are found from any position on."""
        author = self.author(store)
        author.write("b", "activate", *["touch"] * 2500)
        author.write("d", "activate")
        whole = fed(store).events
        assert len(whole) == 2504
        for after in (0, 1, 1022, 1023, 1024, 1025, 2047, 2048, 2049, 2503):
            assert store.feed(whole[after].position, 2, None).events == whole[after + 1 : after + 3]
        agrees(store)

    def test_store_feeds_no_commit_that_was_refused(self, store: SessionStore) -> None:
        """Who comes too late leaves no event, and takes no position from who comes next."""
        author = self.author(store)
        author.write("b", "activate")
        late = author.draft("b", "touch")
        author.write("b", "go_idle")
        before = fed(store)
        with refused(RevisionConflictError):
            store.commit(late)
        assert fed(store) == before
        author.write("b", "resume")
        agrees(store)

    def test_store_feeds_a_tombstone_in_place_of_a_life(self, store: SessionStore) -> None:
        """What is removed leaves a hole, and it is known how far; the tombstone is news."""
        author = self.author(store)
        author.write("d", "activate")
        ended(author, "b")
        last = fed(store).newest
        author.write("d", "touch")
        author.bury("b")
        told = fed(store)
        assert [each[::2] for each in places(told.events)[-2:]] == [
            ("d", "changed"),
            ("b", "purged"),
        ]
        assert told.removed == last
        assert fed(store, "b").removed == last
        assert fed(store, "d").removed == fed(store, "nobody").removed == 0
        agrees(store)
        author.write("b", "activate")
        assert fed(store).removed == last
        agrees(store)
        author.write("b", "terminate", "finish")
        author.write("d", "touch")
        second = fed(store, "b").events[-1].position
        author.bury("b")
        assert fed(store).removed == fed(store, "b").removed == second
        agrees(store)

    def test_store_feeds_what_a_checkpoint_left(self, store: SessionStore) -> None:
        """A checkpoint is no news; what it stands for is missing, and it is known how far."""
        if type(store).compact is SessionStore.compact:
            return
        author = self.author(store)
        author.write("b", "activate", *["touch"] * 1500)
        author.write("d", "activate")
        author.write("b", *["touch"] * 4)
        before = fed(store)
        author.compact("b", keep=3)
        told = fed(store)
        assert told.events == before.events[-6:-4] + before.events[-3:]
        assert (told.newest, told.removed) == (before.newest, before.events[-4].position)
        assert fed(store, "b").removed == told.removed
        assert fed(store, "d").removed == 0
        agrees(store)
        author.write("b", "touch")
        author.compact("b", keep=1)
        assert fed(store).removed == before.newest
        author.write("b", "terminate", "finish")
        author.bury("b")
        author.compact("d", keep=1)
        agrees(store)
        assert fed(store).removed == fed(store, "b").removed > fed(store, "d").removed > 0

    def test_store_feeds_nothing_of_an_undone_batch(self, store: SessionStore) -> None:
        """Inside a batch its own events are told; undone, they and its holes have never been."""
        author = self.author(store)
        author.write("b", "activate", "touch")
        ended(author, "d")
        author.write("f", "activate", *["touch"] * 1020)
        before, of_each = fed(store), [fed(store, each) for each in KEPT]
        with refused(_UndoneError), store.batch():
            author.bury("d")
            author.write("h", "activate", *["touch"] * 1200)
            if type(store).compact is not SessionStore.compact:
                author.compact("f", keep=2)
                author.compact("h", keep=1)
                assert fed(store).removed > before.newest
            author.write("d", "activate")
            agrees(store)
            assert fed(store).newest > before.newest
            raise _UndoneError
        assert fed(store) == before
        assert [fed(store, each) for each in KEPT] == of_each
        author.write("b", "touch")
        assert fed(store).events[:-1] == before.events
        with store.batch():
            author.bury("d")
            author.write("h", "activate")
        agrees(store)

    def test_store_feeds_each_commit_once(self, store: SessionStore) -> None:
        """Who reads while others commit meets every event, once, in order, however it goes."""
        writing, done = 3, threading.Event()
        left = [object()] * writing
        for number in range(writing):
            self.author(store, f"author-{number}").write(KEPT[number], "activate")

        def work(each: int, barrier: threading.Barrier) -> list[Any]:
            barrier.wait()
            if each < writing:
                author = Author(store, f"author-{each}", self.config_of)
                try:
                    for _ in range(40):
                        author.write(KEPT[each], "go_idle", "resume")
                finally:
                    left.pop()
                    if not left:
                        done.set()
                return []
            met: list[PositionedEvent] = []
            position, last = 0, False
            while not last:
                last = done.is_set()
                page = store.feed(position, 7)
                while page.events:
                    met += page.events
                    page = store.feed(page.position, 7)
                position = page.position
            return met

        readers = in_threads(writing + 2, work)[writing:]
        whole = list(fed(store).events)
        assert len(whole) == writing * (2 + 80)
        assert readers == [whole, whole]
        agrees(store)
