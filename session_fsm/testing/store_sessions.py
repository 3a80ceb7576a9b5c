"""The contract of stores, first part: one session, its commits, its history and its end."""

from __future__ import annotations

import attrs

from ..errors import (
    RevisionConflictError,
    SessionExistsError,
    SessionFsmError,
    SessionNotFoundError,
)
from ..history import NO_DIGEST, audit, rebuild
from ..items import Put
from ..serialization import dumps
from ..stores.abc import NotTogetherError, SessionStore
from ..stores.memory import MemoryStore
from ..stores.records import Commit, Stored, Work
from .authors import BEGINNING, Author, StoreRules, everything, grave, refused, routes

TRICKY_JSON = {"b": 1, "a": True, "c": 1.0, "d": [0, -0.0, {}, [], None], "é\U0001f600": 2**63 - 1}
"""Equal to other JSON in Python, and different from it."""


def outcome(commit: Commit) -> Stored:
    """Return what a store has of a session after a commit."""
    last = commit.steps[-1]
    return Stored(last.state, last.sealed.event.revision, last.sealed.event.digest)


class SessionRules(StoreRules):
    """What a store does with one session."""

    def test_store_knows_nothing_at_first(self, store: SessionStore) -> None:
        """A new store is empty, whatever it is asked."""
        assert store.load("a") is None
        assert store.tail("a") == (0, NO_DIGEST)
        assert store.history("a") == ()
        assert store.work_in("a") == ()
        assert not store.landed("a", "author-1")
        told = everything(store, "author")
        assert told.pop("pages") == {status: [] for status in store.lifecycle.statuses}
        assert told.pop("to_stop") == {"author": set()}
        assert not any(told.values())

    def test_store_looks_up_any_text(self, store: SessionStore) -> None:
        """An id that no session can have is an id that none has."""
        self.author(store).write("a")
        for session_id in ("", " ", "A", "a\x00", "\x00", "\ud800", "x" * 100_000, "a' OR '1"):
            assert store.load(session_id) is None
            assert store.tail(session_id) == (0, NO_DIGEST)
            assert store.history(session_id) == ()
            assert store.work_in(session_id) == ()
            assert store.abandoned(session_id) == ()

    def test_store_reads_back_what_was_committed(self, store: SessionStore) -> None:
        """State, revision, digest, events and their bytes are those of the commit."""
        author = self.author(store)
        created = author.write("a", "activate")
        assert store.load("a") == outcome(created)
        moved = author.write("a", ("begin_task", {"task_id": "t"}), "touch")
        stored = store.load("a")
        assert stored == outcome(moved)
        assert stored is not None
        assert stored.revision == 4
        assert store.tail("a") == (stored.revision, stored.digest)
        sealed = [step.sealed for step in (*created.steps, *moved.steps)]
        assert store.history("a") == tuple((each.body, each.event) for each in sealed)

    def test_store_keeps_json_to_the_letter(self, store: SessionStore) -> None:
        """Kinds of numbers, signs of zero and the order of keys come back as they were."""
        commit = self.author(store).write("a", metadata=TRICKY_JSON)
        stored = store.load("a")
        assert stored is not None
        assert dumps(stored.state) == dumps(commit.steps[-1].state)
        rebuilt = rebuild((event for _, event in store.history("a")), store.lifecycle)
        assert rebuilt is not None
        assert dumps(rebuilt) == dumps(stored.state)

    def test_store_keeps_every_status(self, store: SessionStore) -> None:
        """A session is read back in each status that it may be in, as the lifecycle's own word."""
        author = self.author(store)
        for status, triggers in routes(store.lifecycle).items():
            author.write(f"in {status}", *triggers)
            stored = store.load(f"in {status}")
            assert stored is not None
            assert stored.state.status is status
            assert audit(store.history(f"in {status}"), store.lifecycle)[0] == ()

    # --- refusals -------------------------------------------------------------------------

    def test_store_refuses_what_was_decided_on_an_old_revision(self, store: SessionStore) -> None:
        """Of two commits from one revision the second is told so, and changes nothing."""
        author = self.author(store)
        author.write("a", "activate")
        late = author.draft("a", "touch", claims=[Work("worker")])
        author.write("a", ("begin_task", {"task_id": "t"}), "touch")
        before = everything(store, "author")
        with refused(RevisionConflictError) as caught:
            store.commit(late)
        assert (caught[0].session_id, caught[0].expected, caught[0].found) == ("a", 2, 4)
        assert everything(store, "author") == before
        assert not store.landed("a", late.operation_id)

    def test_store_commits_many_each_by_itself(self, store: SessionStore) -> None:
        """Of commits that are handed over together each is made, or refused, as if it was alone."""
        author = self.author(store)
        for name in "abcdefg":
            author.write(name, "activate")
        late, gone = author.draft("b", "touch"), author.draft("g", "touch")
        author.write("b", "touch")
        author.write("g", "terminate", "finish")
        author.bury("g")
        commits = [
            author.draft("a", "go_idle"),
            late,
            author.draft("new", "activate"),
            gone,
            author.draft("c", ("begin_task", {"task_id": "t"}), claims=[Work("task", "t")]),
            author.draft("d", "touch", writes=[Put("notes", "k", 1)]),
            attrs.evolve(author.draft("e", "touch"), owner_id="nobody"),
            author.draft("f", "touch", "go_idle"),
        ]
        told: list[str] = []
        for commit, came in zip(commits, store.commit_all(commits), strict=True):
            try:
                if callable(came):
                    came()
                elif isinstance(came, NotTogetherError):
                    store.commit(commit)
                elif came is not None:
                    raise came
            except SessionFsmError as fault:
                told.append(type(fault).__name__)
            else:
                told.append("made")
        refusals = {1: "RevisionConflictError", 3: "SessionNotFoundError", 6: "FencedError"}
        assert told == [refusals.get(number, "made") for number in range(len(commits))]
        for number, commit in enumerate(commits):
            assert store.landed(commit.session_id, commit.operation_id) == (number not in refusals)
            if number not in refusals:
                assert store.load(commit.session_id) == outcome(commit)
        assert store.work_of("c", "author") == (Work("task", "t"),)
        assert [item.key for item in store.items("d", "notes", 10, None, BEGINNING)] == ["k"]
        assert store.check() == ()

    def test_store_refuses_what_was_decided_on_a_later_revision(self, store: SessionStore) -> None:
        """A revision that the store has not got yet is no base for a commit."""
        author = self.author(store)
        author.write("a", "activate")
        early = attrs.evolve(author.draft("a", "touch"), expected_revision=3)
        before = everything(store)
        with refused(RevisionConflictError) as caught:
            store.commit(early)
        assert (caught[0].expected, caught[0].found) == (3, 2)
        assert everything(store) == before

    def test_store_refuses_to_create_what_exists(self, store: SessionStore) -> None:
        """An id is given once; the session that has it stays as it is."""
        author = self.author(store)
        again = author.draft("a", "activate")
        author.write("a")
        before = everything(store)
        with refused(SessionExistsError) as caught:
            store.commit(again)
        assert caught[0].session_id == "a"
        assert everything(store) == before
        assert not store.landed(again.session_id, again.operation_id)

    def test_store_refuses_to_move_what_is_not_there(self, store: SessionStore) -> None:
        """A commit that moves a session creates none."""
        stray = attrs.evolve(self.author(store).draft("a", "activate"), creates=False)
        with refused(SessionNotFoundError) as caught:
            store.commit(stray)
        assert caught[0].session_id == "a"
        assert store.load("a") is None
        assert store.tail("a") == (0, NO_DIGEST)

    def test_store_tells_whether_a_commit_landed(self, store: SessionStore) -> None:
        """Every commit is known by its operation id from then on."""
        author = self.author(store)
        commits = [author.write("a", "activate"), author.write("a", "touch"), author.write("b")]
        assert all(store.landed(commit.session_id, commit.operation_id) for commit in commits)
        assert not store.landed("a", "author-999")
        assert not store.landed("a", "")

    # --- the end --------------------------------------------------------------------------

    def test_store_leaves_a_tombstone(self, store: SessionStore) -> None:
        """Of a buried session only the last event is left, which goes on from its chain."""
        author = self.author(store)
        last = routes(store.lifecycle)[store.lifecycle.final[0]]
        author.write("a", *last, claims=[Work("worker")])
        author.write("b", *last)
        sealed = author.bury("a")
        assert store.load("a") is None
        assert store.tail("a") == (sealed.event.revision, sealed.event.digest)
        assert store.history("a") == ((sealed.body, sealed.event),)
        assert audit(store.history("a"), store.lifecycle)[0] == ()
        told = everything(store)
        assert told["ids"] == ("a", "b")
        assert told["sessions"].keys() == {"b"}
        assert told["counts"] == {store.lifecycle.final[0]: 1}
        assert len(told["ended"]) == 1
        assert not told["work"]
        assert not told["problems"]

    def test_store_refuses_to_bury_another_revision(self, store: SessionStore) -> None:
        """What changed since, or is not there, is not buried."""
        author = self.author(store)
        author.write("a", *routes(store.lifecycle)[store.lifecycle.final[0]])
        stored = store.load("a")
        assert stored is not None
        before = everything(store)
        with refused(RevisionConflictError) as caught:
            store.bury("a", stored.revision - 1, grave(stored))
        assert (caught[0].session_id, caught[0].found) == ("a", stored.revision)
        with refused(SessionNotFoundError):
            store.bury("b", stored.revision, grave(stored))
        assert everything(store) == before

    def test_store_lets_an_id_go_on_from_its_tombstone(self, store: SessionStore) -> None:
        """A new life of an id continues revisions and digests; one that does not is refused."""
        author = self.author(store)
        from_nothing = author.draft("a")
        author.write("a", *routes(store.lifecycle)[store.lifecycle.final[0]])
        sealed = author.bury("a")
        with refused(RevisionConflictError) as caught:
            store.commit(from_nothing)
        assert (caught[0].expected, caught[0].found) == (0, sealed.event.revision)
        again = author.write("a", "activate")
        assert again.expected_revision == sealed.event.revision
        stored = store.load("a")
        assert stored == outcome(again)
        assert stored is not None
        found, digest, revision = audit(store.history("a"), store.lifecycle)
        assert (found, digest, revision) == ((), stored.digest, stored.revision)
        assert rebuild((event for _, event in store.history("a")), store.lifecycle) == stored.state
        author.write("a", "terminate", "finish")
        author.bury("a")
        assert len(store.history("a")) == 1
        assert store.check() == ()

    def test_store_lets_an_id_go_on_from_a_tombstone_of_elsewhere(
        self, store: SessionStore
    ) -> None:
        """A commit may bring the tombstone that its id goes on from, if it is newer than ours."""
        final = routes(store.lifecycle)[store.lifecycle.final[0]]
        author, elsewhere = self.author(store), Author(MemoryStore(store.lifecycle), "author")
        for updates in (0, 9):
            elsewhere.write("a", *["update"] * updates, *final)
            stone = elsewhere.bury("a")
            bare = elsewhere.draft("a", *final)
            with refused(RevisionConflictError):
                store.commit(bare)
            carried = attrs.evolve(bare, origin=stone)
            store.commit(carried)
            sealed = [stone, *(step.sealed for step in carried.steps)]
            assert store.history("a") == tuple((each.body, each.event) for each in sealed)
            found, digest, revision = audit(store.history("a"), store.lifecycle)
            assert (found, (revision, digest)) == ((), store.tail("a"))
            assert store.load("a") == outcome(carried)
            buried = author.bury("a")
            # What the store has itself is newer now.
            with refused(RevisionConflictError) as caught:
                store.commit(carried)
            assert caught[0].found == buried.event.revision
        assert store.check() == ()
