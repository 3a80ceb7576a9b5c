"""The contract of stores, second part: pages, counts, deadlines, ids and ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import combinations

from ..stores.abc import SessionStore, all_ids
from ..stores.records import Commit
from .authors import BEGINNING, END_OF_TIME, Author, StoreRules, refused, routes

IDS = ("b", "a", "a b", "Z", "~", "é", "e\u0301", "\ud7a3", "\uffdc", "\U0001f600", "10", "9")
"""Ids in no order; by code points, the second plane stands behind the first one."""


def paged(store: SessionStore, statuses: Iterable[str], limit: int) -> list[tuple[str, ...]]:
    """Return the ids on each page, up to the first that is empty."""
    pages: list[tuple[str, ...]] = []
    after: str | None = None
    words = tuple(statuses)
    while page := store.page(words, limit, after):
        pages.append(tuple(stored.state.session_id for stored in page))
        after = pages[-1][-1]
    return pages


def due(store: SessionStore, at: datetime, limit: int) -> list[tuple[datetime, str]]:
    """Return what is due, fetched in pieces."""
    found: list[tuple[datetime, str]] = []
    after: tuple[datetime, str] | None = None
    while piece := store.due(at, limit, after):
        assert len(piece) <= limit
        found += piece
        after = piece[-1]
    return found


def firings(*commits: Commit) -> Counter[tuple[str | None, str | None]]:
    """Return how often the steps of commits tell that a row was fired, by (trigger, source)."""
    events = [step.sealed.event for commit in commits for step in commit.steps]
    return Counter((event.trigger, event.source) for event in events if event.trigger is not None)


class ListingRules(StoreRules):
    """How a store tells of many sessions."""

    def populate(self, author: Author) -> dict[str, set[str]]:
        """Create a session for each of `IDS`, evenly over the statuses; returns ids by status."""
        ways = routes(author.store.lifecycle)
        words = tuple(ways)
        found: dict[str, set[str]] = {word: set() for word in words}
        for number, session_id in enumerate(IDS):
            word = words[number % len(words)]
            author.write(session_id, *ways[word])
            found[word].add(session_id)
        return found

    # --- pages and counts -----------------------------------------------------------------

    def test_store_pages_by_id(self, store: SessionStore) -> None:
        """Pages of any length hold each session once, in the order of the code points."""
        self.populate(self.author(store))
        for limit in (1, 2, 3, 5, len(IDS), 1000):
            pages = paged(store, store.lifecycle.statuses, limit)
            assert [each for page in pages for each in page] == sorted(IDS)
            assert {len(page) for page in pages[:-1]} <= {limit}

    def test_store_pages_by_status(self, store: SessionStore) -> None:
        """A page holds the sessions in any of the statuses that are asked for, and no other."""
        by_status = self.populate(self.author(store))
        for number in range(len(by_status) + 1):
            for words in combinations(by_status, number):
                expected = sorted(each for word in words for each in by_status[word])
                pages = paged(store, words, 2)
                assert [each for page in pages for each in page] == expected

    def test_store_takes_any_words_for_statuses(self, store: SessionStore) -> None:
        """A status that stands twice counts once, and one that nobody knows has no session."""
        by_status = self.populate(self.author(store))
        word, expected = next((word, ids) for word, ids in by_status.items() if ids)
        assert paged(store, (word, word), 1000) == [tuple(sorted(expected))]
        assert paged(store, (word, "nowhere", "' OR '1"), 1000) == [tuple(sorted(expected))]
        assert store.page((), 10, None) == ()
        assert store.page(iter((word,)), 1, None)[0].state.session_id in expected

    def test_store_pages_follow_moves(self, store: SessionStore) -> None:
        """A session that has moved is listed in its new status alone, as it is now."""
        author = self.author(store)
        before = author.write("a", "activate").steps[-1].state
        assert [stored.state for stored in store.page((before.status,), 9, None)] == [before]
        after = author.write("a", "go_idle").steps[-1].state
        assert store.page((before.status,), 9, None) == ()
        assert [stored.state for stored in store.page((after.status,), 9, None)] == [after]

    def test_store_pages_begin_behind_any_text(self, store: SessionStore) -> None:
        """The text that a page begins behind need not be an id."""
        self.populate(self.author(store))
        for after in ("", "\x00", "aa", "zzz", "\U0010ffff"):
            page = store.page(store.lifecycle.statuses, 1000, after)
            found = [stored.state.session_id for stored in page]
            assert found == sorted(each for each in IDS if each > after)

    def test_store_counts_sessions(self, store: SessionStore) -> None:
        """Counts follow each creation, move and burial."""
        author = self.author(store)

        def counts() -> dict[str, int]:
            return {word: number for word, number in store.counts().items() if number}

        by_status = self.populate(author)
        assert counts() == {word: len(ids) for word, ids in by_status.items() if ids}
        moved = author.write("new", "activate", "go_idle").steps[-1].state.status
        assert counts()[moved] == len(by_status[moved]) + 1
        final = store.lifecycle.final[0]
        for session_id in by_status[final]:
            author.bury(session_id)
        assert final not in counts()
        assert store.check() == ()

    def test_store_counts_traffic(self, store: SessionStore) -> None:
        """Each firing of a row counts, for the status in which it was fired, until the burial."""
        author = self.author(store)
        task = {"task_id": "t"}
        assert store.traffic() == {}
        author.write("a")
        assert store.traffic() == {}, "nobody fired anything"
        one = firings(
            author.write("a", "activate", ("begin_task", task), ("end_task", task)),
            author.write("a", "go_idle", "resume"),
        )
        two = firings(
            author.write("b", "activate", "touch", "touch", "go_idle"),
            author.write("b", "touch", "terminate"),
        )
        assert store.traffic() == one + two
        assert store.traffic() == SessionStore.traffic(store)
        assert max(store.traffic().values()) == 2
        author.write("b", "finish")
        author.bury("b")
        author.write("b")
        assert store.traffic() == one

    def test_store_counts_traffic_of_purged_ids(self, store: SessionStore) -> None:
        """Of an id that is used again, the life that is stored counts and no other one."""
        author = self.author(store)
        way = routes(store.lifecycle)[store.lifecycle.final[0]]
        author.write("a", *way)
        author.bury("a")
        assert store.traffic() == {}
        assert firings(author.write("a", *way)) == store.traffic()

    def test_store_counts_traffic_in_a_batch(self, store: SessionStore) -> None:
        """What a batch has written counts inside of it, and not any longer where it is undone."""
        author = self.author(store)
        before = firings(author.write("a", "activate"))
        with refused(ZeroDivisionError), store.batch():
            more = firings(author.write("a", "touch"))
            assert store.traffic() == before + more
            raise ZeroDivisionError
        assert store.traffic() == before

    # --- deadlines ------------------------------------------------------------------------

    def test_store_tells_what_is_due_in_order(self, store: SessionStore) -> None:
        """Deadlines come in order, those of one instant by id, in pieces of any length."""
        author = self.author(store)
        minutes = (5, 3, 3, 0, 9, 3, 5, 7, 1, 0, 2, 2)
        expected = []
        for minute, session_id in zip(minutes, IDS, strict=True):
            at = BEGINNING + timedelta(minutes=minute)
            last = author.write(session_id, "activate", at=at).steps[-1]
            assert last.deadline_at is not None
            expected.append((last.deadline_at, session_id))
        expected.sort()
        assert store.next_deadline() == expected[0][0]
        for limit in (1, 2, 5, 1000):
            assert due(store, END_OF_TIME, limit) == expected
        for instant, _ in expected:
            # What is due at an instant is due from then on.
            assert due(store, instant, 3) == [each for each in expected if each[0] <= instant]
            just_before = instant - timedelta(microseconds=1)
            assert due(store, just_before, 3) == [each for each in expected if each[0] < instant]
        assert store.due(END_OF_TIME, 1, None) == (expected[0],)

    def test_store_forgets_deadlines_that_hold_no_longer(self, store: SessionStore) -> None:
        """Each commit sets the one deadline of its session anew, or takes it away."""
        author = self.author(store)

        def kept() -> list[tuple[datetime, str]]:
            return due(store, END_OF_TIME, 1000)

        first = author.write("a").steps[-1].deadline_at
        assert kept() == [(first, "a")]
        second = author.write("a", "activate").steps[-1].deadline_at
        assert kept() == [(second, "a")]
        assert second != first
        author.write("a", ("begin_task", {"task_id": "t"}))
        assert kept() == []
        assert store.next_deadline() is None
        third = author.write("a", ("end_task", {"task_id": "t"})).steps[-1].deadline_at
        assert (kept(), store.next_deadline()) == ([(third, "a")], third)
        # The same deadline once more, after another one.
        fourth = author.write("a", "touch").steps[-1].deadline_at
        fifth = author.write("a", "go_idle").steps[-1].deadline_at
        assert fifth == fourth
        assert kept() == [(fifth, "a")]
        author.write("a", "terminate", "finish")
        assert kept() == []
        assert store.next_deadline() is None

    def test_store_keeps_deadlines_of_many_moves(self, store: SessionStore) -> None:
        """However often sessions are touched, each has one deadline, the last."""
        author = self.author(store)
        expected: dict[str, datetime | None] = {}
        for session_id in ("a", "b"):
            author.write(session_id, "activate")
            for _ in range(50):
                expected[session_id] = author.write(session_id, "touch").steps[-1].deadline_at
        assert due(store, END_OF_TIME, 1) == sorted((at, each) for each, at in expected.items())

    # --- ids and ends ---------------------------------------------------------------------

    def test_store_lists_ids(self, store: SessionStore) -> None:
        """Every id with a session or a tombstone is listed once, in order, in any pieces."""
        author = self.author(store)
        by_status = self.populate(author)
        for session_id in by_status[store.lifecycle.final[0]]:
            author.bury(session_id)
        for size in (1, 2, 5, 1000):
            assert list(all_ids(store, size)) == sorted(IDS)
        assert store.ids(3, "a") == tuple(sorted(each for each in IDS if each > "a")[:3])

    def test_store_lists_ends_in_order(self, store: SessionStore) -> None:
        """Final sessions come by their end, those of one instant by id, none at or after it."""
        author = self.author(store)
        way = routes(store.lifecycle)[store.lifecycle.final[0]]
        expected = []
        for number, session_id in enumerate(IDS):
            end = BEGINNING + timedelta(minutes=7 * number % 5)
            author.write(session_id, *way, at=end)
            expected.append((end, session_id))
        author.write("alive", "activate")
        author.write("ending", "activate", "terminate")
        expected.sort()

        def ended(before: datetime, limit: int) -> list[tuple[datetime, str]]:
            found = store.ended(before, limit)
            return [(stored.state.status_since, stored.state.session_id) for stored in found]

        for limit in (1, 4, len(IDS), 1000):
            assert ended(END_OF_TIME, limit) == expected[:limit]
        for instant in {each[0] for each in expected}:
            assert ended(instant, 1000) == [each for each in expected if each[0] < instant]
        assert ended(BEGINNING, 1000) == []
