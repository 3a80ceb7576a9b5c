"""The contract of stores, on checkpoints: what is left of a history that was made shorter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs

from ..compaction import checkpoint_of
from ..errors import RevisionConflictError, SessionNotFoundError, StoreUnavailableError
from ..history import STANDS_FOR, audit, chained, rebuild
from ..serialization import dumps
from ..stores.abc import SessionStore
from ..stores.memory import MemoryStore
from .authors import Author, StoreRules, everything, refused, routes
from .store_batches import PATIENCE_SECONDS
from .store_sessions import TRICKY_JSON


class _UndoneError(Exception):
    """Ends a batch that is to be undone."""


def but_histories(store: SessionStore) -> dict[str, Any]:
    """Return all that a store tells, how often rows were fired included, but its histories."""
    told = everything(store, "author")
    del told["histories"]
    return told | {"traffic": {row: number for row, number in store.traffic().items() if number}}


def sound(store: SessionStore, session_id: str) -> None:
    """See that what is left of a history verifies, and leads to the stored session."""
    stored = store.load(session_id)
    assert stored is not None
    history = store.history(session_id)
    assert audit(history, store.lifecycle) == ((), stored.digest, stored.revision)
    rebuilt = rebuild((event for _, event in history), store.lifecycle)
    assert rebuilt is not None
    assert dumps(rebuilt, store.lifecycle) == dumps(stored.state, store.lifecycle)
    assert store.check() == ()


class CompactionRules(StoreRules):
    """What a store does with a checkpoint; one that keeps histories whole has to say so."""

    def keeps_whole(self, store: SessionStore) -> bool:
        """Tell whether a store keeps histories whole; one that does is seen to refuse."""
        if type(store).compact is not SessionStore.compact:
            return False
        author = self.author(store)
        author.write("whole", "activate", "touch")
        before = everything(store, "author")
        with refused(StoreUnavailableError):
            author.compact("whole", keep=1)
        assert everything(store, "author") == before
        return True

    def test_store_puts_a_checkpoint_in_the_place_of_events(self, store: SessionStore) -> None:
        """What is left is the checkpoint and the newest events, to the byte; all else stays."""
        if self.keeps_whole(store):
            return
        author = self.author(store)
        author.write("a", "activate", "touch", metadata=TRICKY_JSON)
        author.write("a", ("begin_task", {"task_id": "t"}), "touch", "start_conversation")
        author.write("b", "activate", "touch")
        before, whole = but_histories(store), store.history("a")
        checkpoint = author.shorter("a", keep=2)
        assert store.compact(checkpoint) == 4
        (body, event), *kept = store.history("a")
        assert tuple(kept) == whole[-2:]
        assert event.digest == chained(checkpoint.last_digest, body)
        assert attrs.evolve(event, digest="") == checkpoint.event
        assert len(store.history("b")) == 3
        assert but_histories(store) == before
        sound(store, "a")
        told = event.changes[STANDS_FOR]
        assert (event.revision, told["events"]) == (4, 4)
        assert told["last_digest"] == checkpoint.last_digest == whole[3][1].digest

    def test_store_puts_a_later_checkpoint_in_the_place_of_one(self, store: SessionStore) -> None:
        """A session goes on behind a checkpoint, and is compacted again and again."""
        if self.keeps_whole(store):
            return
        author = self.author(store)
        author.write("a", "activate")
        for round_ in range(1, 5):
            author.write("a", "touch", "go_idle", "resume")
            before = but_histories(store)
            event = author.compact("a", keep=1).event
            assert event.changes[STANDS_FOR]["events"] == 3 * round_ + 1 == event.revision
            assert [event.revision for _, event in store.history("a")] == [
                3 * round_ + 1,
                3 * round_ + 2,
            ]
            assert but_histories(store) == before
            sound(store, "a")

    def test_store_compacts_in_every_status(self, store: SessionStore) -> None:
        """A session may be compacted wherever it stands, an ended one too, and be buried then."""
        if self.keeps_whole(store):
            return
        author = self.author(store)
        for status, triggers in routes(store.lifecycle).items():
            author.write(status, "update", *triggers)
            author.compact(status, keep=1)
            sound(store, status)
        final = store.lifecycle.final[0]
        stone = author.bury(final)
        assert store.history(final) == ((stone.body, stone.event),)
        author.write(final, "activate", "touch")
        told = author.compact(final, keep=1).event.changes[STANDS_FOR]
        # What was left of the life before counts as an event; its steps went with it.
        assert told["events"] == 3
        assert sum(number for _, _, number in told["fired"]) == 1
        sound(store, final)

    def test_store_refuses_a_checkpoint_that_is_out_of_place(self, store: SessionStore) -> None:
        """It stands for events that are there, of this very life, and not for the last one."""
        if self.keeps_whole(store):
            return
        author = self.author(store)
        elsewhere = Author(MemoryStore(store.lifecycle), "elsewhere")
        elsewhere.write("a", "activate", *["touch"] * 3, metadata={"another": "life"})
        other = elsewhere.shorter("a", keep=2)
        with refused(SessionNotFoundError) as missing:
            store.compact(other)
        assert missing[0].session_id == "a"
        author.write("a", "activate", "touch")
        early = author.shorter("a", keep=1)
        author.write("a", "touch", "touch")
        everything_of_it = checkpoint_of(
            [event for _, event in store.history("a")], 0, store.lifecycle
        )
        assert everything_of_it is not None
        later = author.shorter("a", keep=2)
        before = everything(store, "author")
        for sealed in (other, everything_of_it):
            with refused(RevisionConflictError) as caught:
                store.compact(sealed)
            assert (caught[0].session_id, caught[0].found) == ("a", 5)
            assert everything(store, "author") == before
        assert store.compact(later) == 3
        before = everything(store, "author")
        for sealed in (early, later, other):
            with refused(RevisionConflictError):
                store.compact(sealed)
            assert everything(store, "author") == before

    def test_store_undoes_a_compaction_with_its_batch(self, store: SessionStore) -> None:
        """In a batch a checkpoint is seen at once; what undoes the batch brings the events back."""
        if self.keeps_whole(store):
            return
        author = self.author(store)
        author.write("a", "activate", "touch", "touch")
        author.write("b", "activate", "touch", "touch")
        author.compact("b", keep=2)
        before = everything(store, "author")
        with refused(_UndoneError), store.batch():
            author.compact("a", keep=1)
            author.write("a", "touch")
            author.compact("b", keep=1)
            sound(store, "a")
            assert [len(store.history(each)) for each in "ab"] == [3, 2]
            raise _UndoneError
        assert everything(store, "author") == before
        with store.batch():
            author.compact("a", keep=1)
            author.compact("b", keep=1)
        assert [len(store.history(each)) for each in "ab"] == [2, 2]
        sound(store, "a")
        sound(store, "b")

    def test_store_knows_the_commits_whose_events_stay(self, store: SessionStore) -> None:
        """Whether a commit landed is known as long as its last event is there."""
        if self.keeps_whole(store):
            return
        author = self.author(store)
        author.write("a", "activate", "touch")
        half = author.write("a", "touch", "touch")
        whole = [author.write("a", "touch") for _ in range(3)]
        author.compact("a", keep=4)
        assert all(store.landed("a", each.operation_id) for each in (half, *whole))

    def test_store_shows_a_compaction_whole(self, store: SessionStore) -> None:
        """Whoever reads a history meanwhile meets one that verifies, and goes up to the last."""
        if self.keeps_whole(store):
            return
        author = self.author(store)
        author.write("a", "activate", *["touch"] * 40)
        done: list[bool] = []

        def read() -> int:
            reads = 0
            while not done or not reads:
                found, _, revision = audit(store.history("a"), store.lifecycle)
                assert (found, revision) == ((), 42)
                reads += 1
            return reads

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for keep in range(40, 0, -1):
                    author.compact("a", keep=keep)
            finally:
                done.append(True)
            assert all(reader.result(PATIENCE_SECONDS) for reader in readers)
        assert [event.revision for _, event in store.history("a")] == [41, 42]
