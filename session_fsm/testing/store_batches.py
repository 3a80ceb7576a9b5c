"""The contract of stores, fourth part: batches, and what threads see of each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ..errors import (
    RevisionConflictError,
    SessionExistsError,
    StoreUnavailableError,
)
from ..history import audit
from ..stores.abc import SessionStore
from ..stores.records import Work
from .authors import StoreRules, everything, refused, routes

TASK, WORKER = Work("task", "t"), Work("worker")
PATIENCE_SECONDS = 60.0
"""Longest wait for a thread; only a deadlock takes that long."""


class _UndoneError(Exception):
    """Ends a batch that is to be undone."""


def in_threads(number: int, work: Callable[[int, threading.Barrier], Any]) -> list[Any]:
    """Run work in threads that meet at a barrier; returns the results, in order."""
    barrier = threading.Barrier(number, timeout=PATIENCE_SECONDS)

    def run(each: int) -> Any:
        try:
            return work(each, barrier)
        except BaseException:
            barrier.abort()  # the others must not wait for this one
            raise

    with ThreadPoolExecutor(number) as pool:
        futures = [pool.submit(run, each) for each in range(number)]
    faults = [fault for each in futures if (fault := each.exception()) is not None]
    faults.sort(key=lambda fault: isinstance(fault, threading.BrokenBarrierError))
    if faults:
        raise faults[0]
    return [each.result() for each in futures]


class BatchRules(StoreRules):
    """What is seen whole or not at all."""

    # --- batches --------------------------------------------------------------------------

    def test_store_keeps_a_batch(self, store: SessionStore) -> None:
        """All that was done in a batch is seen inside at once, and stays."""
        author = self.author(store)
        author.write("old", *routes(store.lifecycle)[store.lifecycle.final[0]])
        with store.batch():
            commit = author.write("a", "activate", claims=[WORKER])
            author.write("a", ("begin_task", {"task_id": "t"}), claims=[TASK])
            author.bury("old")
            store.set_mark("m", b"1")
            inside = everything(store, author.name)
            assert inside["sessions"].keys() == {"a"}
            assert set(store.work_in("a")) == {TASK, WORKER}
            assert store.mark("m") == b"1"
            assert store.landed(commit.session_id, commit.operation_id)
        assert everything(store, author.name) == inside
        assert store.mark("m") == b"1"
        assert inside["problems"] == ()

    def test_store_undoes_a_batch(self, store: SessionStore) -> None:
        """An exception undoes sessions, histories, work, orders, marks and operations alike."""
        author, other = self.author(store), self.author(store, "other")
        final = routes(store.lifecycle)[store.lifecycle.final[0]]
        author.write("a", "activate", claims=[WORKER])
        author.write("idle", "activate", "go_idle")
        author.write("buried", *final)
        author.write("reborn", *final)
        other.write("stopped", "activate", claims=[WORKER, TASK])
        store.set_mark("m", b"before")
        store.set_mark("k", b"kept")
        store.dismiss("other")
        before = everything(store, "author", "other")
        with refused(_UndoneError), store.batch():
            commits = [
                author.write("a", "touch", stops_worker=True),
                author.write("a", ("begin_task", {"task_id": "t"}), claims=[TASK, WORKER]),
                author.write("idle", "terminate", "finish"),
                author.write("new", "activate", claims=[WORKER]),
                author.write("stopped", "touch", claims=[TASK], stops_worker=True),
            ]
            author.bury("buried")
            author.bury("reborn")
            author.write("reborn", "activate")
            store.release("stopped", [WORKER], "other")
            store.set_mark("m", b"after")
            store.set_mark("n", b"new")
            store.drop_mark("k")
            assert everything(store, "author", "other") != before
            raise _UndoneError
        assert everything(store, "author", "other") == before
        assert store.marks("") == (("k", b"kept"), ("m", b"before"))
        assert not any(store.landed(commit.session_id, commit.operation_id) for commit in commits)
        author.write("new", "activate")
        author.write("a", "touch")
        assert store.check() == ()

    def test_store_undoes_a_batch_on_an_interrupt(self, store: SessionStore) -> None:
        """Whatever breaks a batch undoes it, and the next one works."""
        author = self.author(store)
        for kind in (KeyboardInterrupt, GeneratorExit):
            with refused(kind), store.batch():
                author.write("a", "activate")
                raise kind
            assert store.load("a") is None
        with store.batch():
            author.write("a", "activate")
        assert store.load("a") is not None

    def test_store_refuses_alone_what_it_refuses_in_a_batch(self, store: SessionStore) -> None:
        """A refused commit leaves no trace in its batch, whose other commits stay."""
        author = self.author(store)
        author.write("a", "activate")
        late = author.draft("a", "touch", "touch", claims=[TASK])
        again = author.draft("b")
        with store.batch():
            author.write("a", "touch")
            author.write("b", "activate")
            with refused(RevisionConflictError):
                store.commit(late)
            with refused(SessionExistsError):
                store.commit(again)
            author.write("c")
        assert everything(store)["tails"].keys() == {"a", "b", "c"}
        assert [store.tail(each)[0] for each in "abc"] == [3, 2, 1]
        assert store.work_in("a") == ()
        assert store.check() == ()

    def test_store_does_not_nest_batches(self, store: SessionStore) -> None:
        """A batch inside a batch is refused; the outer one goes on unharmed."""
        author = self.author(store)
        with store.batch():
            author.write("a")
            with refused(StoreUnavailableError), store.batch():
                raise AssertionError("a batch was opened in a batch")
            author.write("b")
        assert store.ids(9, None) == ("a", "b")
        with store.batch():
            author.write("c")
        assert store.ids(9, None) == ("a", "b", "c")

    def test_store_makes_other_threads_wait_for_a_batch(self, store: SessionStore) -> None:
        """A commit of another thread is not done before the batch is."""
        author, other = self.author(store), self.author(store, "other")
        draft = other.draft("b")
        begins = threading.Event()
        order: list[str] = []

        def commit() -> None:
            begins.set()
            store.commit(draft)
            order.append("commit")

        with ThreadPoolExecutor(1) as pool:
            with store.batch():
                author.write("a")
                done: Future[None] = pool.submit(commit)
                assert begins.wait(PATIENCE_SECONDS)
                for _ in range(50):
                    author.write("c")
                    author.write("c", "activate", "terminate", "finish")
                    author.bury("c")
                order.append("batch")
            done.result(PATIENCE_SECONDS)
        assert order == ["batch", "commit"]
        assert everything(store)["sessions"].keys() == {"a", "b"}

    def test_store_shows_nobody_a_batch_that_is_undone(self, store: SessionStore) -> None:
        """Readers see what was before a batch, whatever they ask and whenever."""
        author = self.author(store)
        author.write("a", "activate")
        before = (store.tail("a"), store.counts(), store.ids(9, None), store.next_deadline())
        stop = threading.Event()
        ready = threading.Event()

        def read() -> set[str]:
            seen = set()
            while not stop.is_set():
                now = (store.tail("a"), store.counts(), store.ids(9, None), store.next_deadline())
                seen.add(repr(now))
                ready.set()
            return seen

        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(read)
            try:
                assert ready.wait(PATIENCE_SECONDS)
                for number in range(20):
                    with refused(_UndoneError), store.batch():
                        author.write(f"new {number}")
                        author.write("a", "go_idle")
                        raise _UndoneError
            finally:
                stop.set()
            assert seen.result(PATIENCE_SECONDS) == {repr(before)}

    # --- threads --------------------------------------------------------------------------

    def test_store_shows_composite_commits_whole(self, store: SessionStore) -> None:
        """Whoever reads meets a session, its events and its listing between commits only."""
        author = self.author(store)
        author.write("a", "activate", "go_idle")
        author.write("b", "activate")
        rounds = 20
        stop = threading.Event()

        def read() -> int:
            reads = 0
            while not stop.is_set() or not reads:
                stored = store.load("a")
                assert stored is not None
                # Revisions 3, 6, 9 ...: each commit makes three steps.
                assert stored.revision % 3 == 0, stored.revision
                assert len(store.history("a")) % 3 == 0
                assert store.tail("a")[0] % 3 == 0
                assert sum(store.counts().values()) == 2
                both = store.page(store.lifecycle.statuses, 9, None)
                assert [each.state.session_id for each in both] == ["a", "b"]
                assert both[0].revision % 3 == 0
                reads += 1
            return reads

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for _ in range(rounds):
                    author.write("a", "resume", "touch", "go_idle")
            finally:
                stop.set()
            assert all(reader.result(PATIENCE_SECONDS) for reader in readers)
        assert store.tail("a")[0] == 3 * (rounds + 1)

    def test_store_lets_one_thread_win_each_revision(self, store: SessionStore) -> None:
        """Of threads that commit from one revision exactly one wins, round after round."""
        self.author(store).write("a", "activate")
        threads, rounds = 4, 8

        def compete(number: int, barrier: threading.Barrier) -> int:
            author = self.author(store, f"thread {number}")
            won = 0
            for _ in range(rounds):
                draft = author.draft("a", "touch", claims=[Work("task", author.name)])
                barrier.wait()
                with suppress(RevisionConflictError):
                    store.commit(draft)
                    won += 1
                barrier.wait()
            return won

        won = in_threads(threads, compete)
        assert sum(won) == rounds, won
        assert store.tail("a")[0] == 2 + rounds
        assert len(store.work_in("a")) == sum(map(bool, won))
        assert audit(store.history("a"), store.lifecycle)[0] == ()

    def test_store_lets_one_thread_create_an_id(self, store: SessionStore) -> None:
        """Of threads that create one id at once exactly one does."""
        ids = [f"session {number}" for number in range(8)]

        def compete(number: int, barrier: threading.Barrier) -> list[str]:
            author = self.author(store, f"thread {number}")
            created = []
            for session_id in ids:
                draft = author.draft(session_id, "activate")
                barrier.wait()
                with suppress(SessionExistsError):
                    store.commit(draft)
                    created.append(session_id)
                barrier.wait()
            return created

        created = in_threads(4, compete)
        assert sorted(each for some in created for each in some) == ids
        assert [store.tail(each)[0] for each in ids] == [2] * len(ids)

    def test_store_takes_commits_of_many_threads(self, store: SessionStore) -> None:
        """Threads that work on sessions of their own lose nothing and refuse nothing."""

        def work(number: int, barrier: threading.Barrier) -> None:
            author = self.author(store, f"thread {number}")
            barrier.wait()
            author.write(f"s{number}", "activate")
            for step in range(5):
                author.write(f"s{number}", ("begin_task", {"task_id": f"t{step}"}))
                if step % 2:
                    with store.batch():
                        author.write(f"s{number}", "touch")
                        author.write(f"s{number}", "touch")

        assert in_threads(4, work) == [None] * 4
        assert [store.tail(f"s{number}")[0] for number in range(4)] == [11] * 4
        assert store.check() == ()
