"""The contract of stores, on owners: who may write, and who takes what a dead one has left."""

from __future__ import annotations

import threading

import attrs

from ..errors import FencedError
from ..items import Put
from ..state import SessionConfig
from ..stores.abc import SessionStore
from ..stores.records import Taken, Work
from .authors import Author, StoreRules, everything, refused, routes
from .store_batches import in_threads

TASK, START, WORKER = Work("task", "t"), Work("start"), Work("worker")
MANY = 1000


def gives(store: SessionStore, taken: tuple[Taken, ...], owner_id: str) -> bool:
    """Tell whether a store gives all work to whoever takes it; others leave it with the dead."""
    assert all(each.holder_id in (owner_id, each.owner_id) for each in taken)
    return all(each.holder_id == owner_id for each in taken)


class TakingRules(StoreRules):
    """Who may write, and who answers for the work of the dead."""

    def test_store_refuses_writers_that_do_not_live(self, store: SessionStore) -> None:
        """Whoever is not known, or was dismissed, changes nothing, though all else is right."""
        author, other = self.author(store), self.author(store, "other")
        author.write("a", "activate")
        other.write("b", "activate", claims=[TASK])
        late = [
            other.draft("a", "touch", claims=[WORKER]),
            other.draft("b", "touch", releases=[TASK]),
            other.draft("new", "activate"),
            other.draft("b", "touch", writes=[Put("files", "k", 1)]),
            attrs.evolve(author.draft("a", "touch"), owner_id="nobody"),
        ]
        store.dismiss("other")
        before = everything(store, "author", "other")
        for commit in late:
            with refused(FencedError) as caught:
                store.commit(commit)
            assert caught[0].session_id == commit.session_id
            assert caught[0].owner_id == commit.owner_id
        with refused(FencedError) as fenced:
            other.put("b", Put("files", "k", 1))
        assert (fenced[0].session_id, fenced[0].owner_id) == ("b", "other")
        assert everything(store, "author", "other") == before
        author.write("a", "touch")

    def test_store_refuses_the_dead_alone_in_a_batch(self, store: SessionStore) -> None:
        """What a dead owner is refused in a batch leaves no trace there, and all else is kept."""
        author, other = self.author(store), self.author(store, "other")
        author.write("a", "activate")
        late = other.draft("a", "touch")
        store.dismiss("other")
        with store.batch():
            author.write("b", "activate")
            with refused(FencedError):
                store.commit(late)
            author.write("a", "touch")
        assert (store.tail("a")[0], store.tail("b")[0]) == (3, 2)
        assert store.check() == ()

    def test_store_hands_over_what_the_dead_left(self, store: SessionStore) -> None:
        """Who takes over has all that dead owners left and nothing of the living, once."""
        one, two, heir = (self.author(store, name) for name in ("one", "two", "heir"))
        one.write("a", "activate", claims=[WORKER, TASK])
        two.write("a", "touch", claims=[Work("task", "u")])
        one.write("b", claims=[START])
        two.write("c", "activate", claims=[WORKER])
        heir.write("d", "activate", claims=[WORKER])
        assert store.take_over("heir", MANY, restarting=True) == ()
        store.dismiss("one")
        taken = store.take_over("heir", MANY, restarting=True)
        assert {(each.session_id, each.owner_id) for each in taken} == {("a", "one"), ("b", "one")}
        assert {each.session_id: set(each.work) for each in taken} == {
            "a": {WORKER, TASK},
            "b": {START},
        }
        assert set(store.work_in("a")) == {WORKER, TASK, Work("task", "u")}
        if not gives(store, taken, "heir"):
            assert all(each.attempts == 0 for each in taken if each.holder_id == each.owner_id)
            return
        assert set(store.work_of("a", "heir")) == {WORKER, TASK}
        assert store.work_of("a", "two") == (Work("task", "u"),)
        assert store.work_of("a", "one") == store.work_of("nowhere", "heir") == ()
        assert store.abandoned() == ()
        assert store.take_over("two", MANY, restarting=True) == ()
        store.release("a", [WORKER], "one")
        assert WORKER in store.work_in("a")
        store.release("a", [WORKER], "heir")
        assert WORKER not in store.work_in("a")
        heir.write("b", "abort", releases=[START])
        assert store.check() == ()

    def test_store_counts_how_often_a_session_was_taken_over(self, store: SessionStore) -> None:
        """Each heir that dies in turn is told one more; a few at a time are taken, by id."""
        names = ("one", "two", "three")
        authors = {name: self.author(store, name) for name in names}
        for session_id in ("a", "b", "c"):
            authors["one"].write(session_id, "activate", claims=[WORKER])
        for number, (dead, heir) in enumerate((("one", "two"), ("two", "three")), 1):
            store.dismiss(dead)
            taken = store.take_over(heir, 2, restarting=True)
            if not gives(store, taken, heir):
                return
            assert [each.session_id for each in taken] == ["a", "b"]
            taken += store.take_over(heir, 2, restarting=True)
            assert [each.session_id for each in taken] == ["a", "b", "c"]
            assert {(each.owner_id, each.attempts) for each in taken} == {(dead, number)}

    def test_store_counts_no_take_over_that_came_to_nothing(self, store: SessionStore) -> None:
        """What is given back was not taken: neither its count nor its time is kept."""
        one, two = self.author(store, "one"), self.author(store, "two")
        self.author(store, "three")
        one.write("a", "activate", claims=[WORKER])
        store.dismiss("one")
        for _ in range(3):
            taken = store.take_over("two", MANY, restarting=True)
            if not gives(store, taken, "two"):
                return
            assert [(each.owner_id, each.attempts) for each in taken] == [("one", 1)]
            store.give_back(taken[0])
        store.take_over("two", MANY, restarting=True)
        two.write("a", "touch")
        store.dismiss("two")
        for _ in range(2):
            [taken_again] = store.take_over("three", MANY, restarting=True)
            assert (taken_again.owner_id, taken_again.attempts) == ("two", 2)
            store.give_back(taken_again)

    def test_store_counts_the_deaths_of_who_ran_a_worker(self, store: SessionStore) -> None:
        """A task that somebody dead left says nothing of the session: it is not counted."""
        runner = self.author(store, "runner")
        self.author(store, "heir")
        runner.write("a", "activate", claims=[WORKER])
        taken: tuple[Taken, ...] = ()
        for number in range(3):
            front = self.author(store, f"front {number}")
            front.write("a", "touch", claims=[Work("task", f"t{number}")])
            store.dismiss(front.name)
            taken = store.take_over("heir", MANY, restarting=True)
            assert [each.attempts for each in taken if each.owner_id == front.name] == [0]
        if not gives(store, taken, "heir"):
            return
        front = self.author(store, "front")
        front.write("a", "touch", claims=[TASK])
        store.dismiss("front")
        store.dismiss("runner")
        taken = store.take_over("heir", MANY, restarting=True)
        assert {each.owner_id: each.attempts for each in taken} == {"front": 0, "runner": 1}

    def test_store_limits_sessions_and_not_their_work(self, store: SessionStore) -> None:
        """However much work a session has, as many sessions are taken as were asked for."""
        one = self.author(store, "one")
        self.author(store, "heir")
        ids = [f"s{number}" for number in range(7)]
        for session_id in ids:
            tasks = [Work("task", f"t{number}") for number in range(5)]
            one.write(session_id, "activate", claims=tasks)
        store.dismiss("one")
        found: list[str] = []
        for expected in (3, 3, 1, 0):
            taken = store.take_over("heir", 3, restarting=True)
            if not gives(store, taken, "heir"):
                return
            assert len(taken) == expected
            assert all(len(each.work) == 5 for each in taken)
            found += [each.session_id for each in taken]
        assert found == ids

    def test_store_takes_back_what_nobody_can_deal_with(self, store: SessionStore) -> None:
        """Work that is given back is the dead owner's again, and the next one gets it."""
        one, heir = self.author(store, "one"), self.author(store, "heir")
        one.write("a", "activate", claims=[WORKER, TASK])
        store.dismiss("one")
        [taken] = store.take_over("heir", MANY, restarting=True)
        store.give_back(taken)
        [left] = store.abandoned()
        assert (left.owner_id, set(left.work)) == ("one", {WORKER, TASK})
        [again] = store.take_over("heir", MANY, restarting=True)
        assert (again.owner_id, set(again.work)) == ("one", {WORKER, TASK})
        if gives(store, (again,), "heir"):
            heir.write("a", "touch", releases=[TASK])
            store.give_back(again)
            assert [set(each.work) for each in store.abandoned()] == [{WORKER}]

    def test_store_leaves_what_is_to_be_started_anew(self, store: SessionStore) -> None:
        """Who starts no workers passes over the sessions that want theirs anew, and only them."""
        configs = {"a": SessionConfig(recovery="restart"), "b": SessionConfig(recovery="end")}
        author = Author(store, "one", lambda each: configs.get(each, SessionConfig()))
        self.author(store, "heir")
        for session_id in ("a", "b", "c"):
            author.write(session_id, "activate", claims=[WORKER])
        author.write("a2", "activate", claims=[TASK])
        store.dismiss("one")
        taken = store.take_over("heir", MANY, restarting=False)
        assert {each.session_id for each in taken} == {"a2", "b", "c"}
        taken = store.take_over("heir", MANY, restarting=True)
        assert "a" in {each.session_id for each in taken}

    def test_store_passes_over_what_it_is_told_to(self, store: SessionStore) -> None:
        """Sessions that are to be passed over are not taken, and count for no limit."""
        one = self.author(store, "one")
        self.author(store, "heir")
        for session_id in ("a", "b", "c", "d"):
            one.write(session_id, "activate", claims=[WORKER])
        store.dismiss("one")
        passed_over = ("a", "b")
        found: list[str] = []
        for restarting in (False, True, False):
            taken = store.take_over("heir", 1, restarting=restarting, passing_over=passed_over)
            found += [each.session_id for each in taken]
            if not gives(store, taken, "heir"):
                assert not set(found).intersection(passed_over)
                return
        assert found == ["c", "d"]
        assert [each.session_id for each in store.abandoned()] == ["a", "b"]

    def test_store_refuses_heirs_that_do_not_live(self, store: SessionStore) -> None:
        """A dead owner takes over nothing, where work is given away at all."""
        one = self.author(store, "one")
        self.author(store, "heir")
        one.write("a", "activate", claims=[WORKER])
        store.dismiss("one")
        store.dismiss("heir")
        if store.take_over.__func__ is SessionStore.take_over:  # type: ignore[attr-defined]
            return
        self.author(store, "probe")
        if not gives(store, store.take_over("probe", MANY, restarting=True), "probe"):
            return
        store.dismiss("probe")
        with refused(FencedError):
            store.take_over("heir", MANY, restarting=True)
        assert [each.owner_id for each in store.abandoned()] == ["probe"]

    def test_store_gives_each_session_to_one_heir(self, store: SessionStore) -> None:
        """Of heirs that ask at once, each session has one."""
        one = self.author(store, "one")
        ids = [f"session {number:03}" for number in range(60)]
        for session_id in ids:
            one.write(session_id, *routes(store.lifecycle)["active"], claims=[WORKER])
        store.dismiss("one")
        self.author(store, "probe")

        def take(number: int, barrier: threading.Barrier) -> list[Taken]:
            heir = self.author(store, f"heir {number}")
            barrier.wait()
            found: list[Taken] = []
            while taken := store.take_over(heir.name, 7, restarting=True):
                found += taken
                if not gives(store, taken, heir.name):
                    break
            return found

        taken = [each for some in in_threads(4, take) for each in some]
        given = [each.session_id for each in taken if each.holder_id != each.owner_id]
        assert len(given) == len(set(given))
        if all(each.holder_id != each.owner_id for each in taken):
            assert sorted(given) == ids
