"""The contract of stores, third part: work in progress and its owners, marks, and closing."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import RevisionConflictError, StoreUnavailableError
from ..stores.abc import SessionStore
from ..stores.records import Work
from .authors import BEGINNING, END_OF_TIME, StoreRules, grave, refused, routes

TASK, OTHER_TASK = Work("task", "t"), Work("task", "é' t")
START, STOP, WORKER = Work("start"), Work("stop"), Work("worker")


def left(store: SessionStore, session_id: str | None = None) -> dict[tuple[str, str], set[Work]]:
    """Return what dead owners left, by session and owner."""
    found = store.abandoned(session_id)
    assert len({(each.session_id, each.owner_id) for each in found}) == len(found)
    return {(each.session_id, each.owner_id): set(each.work) for each in found}


class WorkRules(StoreRules):
    """How a store remembers who answers for what."""

    # --- work -----------------------------------------------------------------------------

    def test_store_keeps_work(self, store: SessionStore) -> None:
        """What a commit claims is in progress until a commit releases it, whoever claimed it."""
        one, two = self.author(store, "one"), self.author(store, "two")
        one.write("a", claims=[START])
        assert store.work_in("a") == (START,)
        one.write("a", "activate", claims=[TASK, WORKER], releases=[START])
        two.write("a", "touch", claims=[OTHER_TASK])
        assert set(store.work_in("a")) == {TASK, OTHER_TASK, WORKER}
        two.write("a", "touch", releases=[TASK, STOP])
        assert set(store.work_in("a")) == {OTHER_TASK, WORKER}
        two.write("a", "touch", claims=[TASK], releases=[TASK, OTHER_TASK, WORKER])
        assert store.work_in("a") == (TASK,)
        assert store.work_in("b") == ()

    def test_store_claims_nothing_by_a_refused_commit(self, store: SessionStore) -> None:
        """Work goes with the steps: none is claimed or released where they are refused."""
        author = self.author(store)
        author.write("a", "activate", claims=[TASK])
        late = author.draft("a", "touch", claims=[WORKER], releases=[TASK], stops_worker=True)
        author.write("a", "touch")
        with refused(RevisionConflictError):
            store.commit(late)
        assert store.work_in("a") == (TASK,)

    def test_store_releases_work_of_one_owner(self, store: SessionStore) -> None:
        """An owner lets go of its own work without a step, and of nobody else's."""
        one, two = self.author(store, "one"), self.author(store, "two")
        one.write("a", "activate", claims=[TASK, WORKER])
        two.write("a", "touch", claims=[OTHER_TASK])
        store.release("a", (TASK, OTHER_TASK, STOP), "one")
        assert set(store.work_in("a")) == {OTHER_TASK, WORKER}
        store.release("a", (), "one")
        store.release("b", (TASK,), "one")
        assert set(store.work_in("a")) == {OTHER_TASK, WORKER}
        store.release("a", iter((OTHER_TASK,)), "two")
        store.release("a", [WORKER], "one")
        assert store.work_in("a") == ()

    def test_store_buries_work_with_its_session(self, store: SessionStore) -> None:
        """What was in progress in a buried session is in progress no longer."""
        author = self.author(store)
        author.write("a", *routes(store.lifecycle)[store.lifecycle.final[0]], claims=[WORKER])
        store.dismiss(author.name)
        assert left(store) == {("a", "author"): {WORKER}}
        author.bury("a")
        assert store.work_in("a") == ()
        assert left(store) == {}

    # --- owners ---------------------------------------------------------------------------

    def test_store_tells_what_dead_owners_left(self, store: SessionStore) -> None:
        """Only the work of owners that were dismissed, or never known, is abandoned."""
        one, two = self.author(store, "one"), self.author(store, "two")
        one.write("a", "activate", claims=[TASK, WORKER])
        two.write("a", "touch", claims=[OTHER_TASK])
        one.write("b", claims=[START])
        two.write("c", claims=[START])
        assert left(store) == left(store, "a") == {}
        store.dismiss("one")
        assert left(store) == {("a", "one"): {TASK, WORKER}, ("b", "one"): {START}}
        assert left(store, "b") == {("b", "one"): {START}}
        assert left(store, "c") == left(store, "nowhere") == {}
        store.dismiss("two")
        assert left(store, "a") == {("a", "one"): {TASK, WORKER}, ("a", "two"): {OTHER_TASK}}
        store.release("a", [TASK, WORKER], "one")
        assert left(store, "a") == {("a", "two"): {OTHER_TASK}}

    def test_store_tells_who_lives(self, store: SessionStore) -> None:
        """An owner lives from its being known to its dismissal, with or without work."""
        one = self.author(store, "one")
        assert (store.is_alive("one"), store.is_alive("two")) == (True, False)
        one.write("a", "activate", claims=[TASK])
        store.enlist("two")
        store.dismiss("one")
        assert (store.is_alive("one"), store.is_alive("two")) == (False, True)

    def test_store_lets_work_be_taken_over(self, store: SessionStore) -> None:
        """Work that a living owner claims is not abandoned any more, whoever had it before."""
        one, two = self.author(store, "one"), self.author(store, "two")
        one.write("a", "activate", claims=[TASK])
        store.dismiss("one")
        two.write("a", "touch", claims=[TASK])
        assert left(store) == {}
        store.release("a", [TASK], "one")
        assert store.work_in("a") == (TASK,)

    def test_store_dismisses_twice(self, store: SessionStore) -> None:
        """An owner may be dismissed twice, or without ever having been known."""
        author = self.author(store)
        author.write("a", claims=[START])
        for _ in range(2):
            store.dismiss(author.name)
            store.dismiss("nobody")
        assert left(store) == {("a", "author"): {START}}

    def test_store_tells_which_workers_to_stop(self, store: SessionStore) -> None:
        """The owner of a worker is told to stop it, once a commit of anybody's says so."""
        one, two = self.author(store, "one"), self.author(store, "two")
        for session_id in ("b", "a", "c"):
            one.write(session_id, "activate", claims=[WORKER, TASK])
        two.write("d", "activate", claims=[TASK])
        assert store.to_stop("one") == store.to_stop("two") == ()
        for session_id in ("b", "a", "d"):
            two.write(session_id, "terminate", stops_worker=True)
        assert set(store.to_stop("one")) == {"a", "b"}
        assert store.to_stop("two") == ()
        store.release("b", [WORKER], "one")
        assert store.to_stop("one") == ("a",)
        two.write("a", "finish", releases=[WORKER])
        assert store.to_stop("one") == ()

    def test_store_gives_a_new_worker_no_old_order(self, store: SessionStore) -> None:
        """Whoever takes over a worker was not told to stop it."""
        one, two = self.author(store, "one"), self.author(store, "two")
        one.write("a", "activate", claims=[WORKER])
        one.write("a", "touch", stops_worker=True)
        assert store.to_stop("one") == ("a",)
        two.write("a", "touch", claims=[WORKER])
        assert store.to_stop("one") == store.to_stop("two") == ()

    # --- marks ----------------------------------------------------------------------------

    def test_store_keeps_marks(self, store: SessionStore) -> None:
        """Under each name the bytes that were kept last are found, any bytes."""
        every_byte = bytes(range(256))
        assert store.mark("a") is None
        for body in (b"", every_byte, every_byte * 1000, b"\x00"):
            store.set_mark("a", body)
            assert store.mark("a") == body
            assert isinstance(store.mark("a"), bytes)
        store.set_mark("é' b", b"other")
        assert (store.mark("a"), store.mark("é' b"), store.mark("b")) == (b"\x00", b"other", None)

    def test_store_drops_marks(self, store: SessionStore) -> None:
        """A name under which something was dropped keeps nothing, and can be used again."""
        store.set_mark("a", b"1")
        store.set_mark("ab", b"2")
        store.drop_mark("a")
        store.drop_mark("a")
        assert (store.mark("a"), store.mark("ab")) == (None, b"2")
        assert store.marks("") == (("ab", b"2"),)
        store.set_mark("a", b"3")
        assert store.mark("a") == b"3"

    def test_store_lists_marks(self, store: SessionStore) -> None:
        """Names that begin alike are listed with what they keep, in the order of characters."""
        names = ("a/é", "a/", "a/b", "a0", "a/%_", "a", "a/B", "b/a", "a/\U0010ffff", "a/\uffff")
        for name in names:
            store.set_mark(name, name.encode())
        for prefix in ("", "a", "a/", "a/b", "a/\U0010ffff", "A", "a/b/", "a/_", "c"):
            found = sorted(name for name in names if name.startswith(prefix))
            assert store.marks(prefix) == tuple((name, name.encode()) for name in found)

    # --- the store itself -----------------------------------------------------------------

    def test_store_finds_nothing_wrong_with_itself(self, store: SessionStore) -> None:
        """After lives of every length, burials and rebirths, a store is in order."""
        author = self.author(store)
        for status, triggers in routes(store.lifecycle).items():
            author.write(status, *triggers, claims=[WORKER])
        author.bury(store.lifecycle.final[0])
        author.write(store.lifecycle.final[0], "activate")
        assert store.check() == ()

    def test_store_is_unavailable_once_closed(self, store: SessionStore) -> None:
        """A closed store answers nothing and takes nothing; closing it again is harmless."""
        author = self.author(store)
        author.write("a", "activate", claims=[WORKER])
        draft, creation = author.draft("a", "touch"), author.draft("b")
        stored = store.load("a")
        assert stored is not None
        buried = stored
        store.close()
        store.close()

        def batch() -> None:
            with store.batch():
                raise AssertionError("a batch was opened")

        calls: tuple[Callable[[], object], ...] = (
            lambda: store.load("a"),
            lambda: store.tail("a"),
            lambda: store.commit(draft),
            lambda: store.commit(creation),
            lambda: store.landed("a", "x"),
            lambda: store.history("a"),
            lambda: store.feed(0, 1),
            lambda: store.feed(0, 1, "a"),
            lambda: store.page(store.lifecycle.statuses, 1, None),
            store.counts,
            lambda: store.due(END_OF_TIME, 1, None),
            store.next_deadline,
            lambda: store.ids(1, None),
            lambda: store.enlist("x"),
            lambda: store.work_in("a"),
            lambda: store.work_of("a", "author"),
            lambda: store.take_over("author", 1, restarting=True),
            store.abandoned,
            lambda: store.to_stop("author"),
            lambda: store.release("a", [WORKER], "author"),
            lambda: store.ended(BEGINNING, 1),
            lambda: store.bury("a", buried.revision, grave(buried)),
            batch,
            lambda: store.mark("x"),
            lambda: store.set_mark("x", b""),
            lambda: store.drop_mark("x"),
            lambda: store.marks("x"),
            lambda: store.is_alive("x"),
            store.check,
        )
        for call in calls:
            with refused(StoreUnavailableError) as caught:
                call()
            assert caught[0].operation_id is None
        store.dismiss("author")
