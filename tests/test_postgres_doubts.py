"""Take-overs on a PostgreSQL server whose answers were lost, and what had happened by then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest
from losing import lose_answer
from managing import Worker
from postgres_server import PostgresServer

from session_fsm import SessionManager, StoreUnavailableError
from session_fsm.stores import PostgresStore
from session_fsm.stores.postgres_doubts import TakenOver
from session_fsm.stores.records import Taken, Work
from session_fsm.testing.authors import Author

WORKER, TASK = Work("worker"), Work("task", "t")
OpenStore = Callable[..., PostgresStore]


@pytest.fixture
def opened(postgres_url: str) -> Iterator[OpenStore]:
    """Opens stores in one schema, as several machines do."""
    with ExitStack() as stack:

        def open_one(**more: Any) -> PostgresStore:
            return stack.enter_context(closing(PostgresStore(postgres_url, **more)))

        yield open_one


def in_doubt(store: PostgresStore, *, lands: bool, owner_id: str = "heir") -> None:
    """Have a take-over end so that nobody knows what came of it."""
    lose_answer(store, lands=lands)
    with pytest.raises(StoreUnavailableError) as caught:
        store.take_over(owner_id, 9, restarting=True)
    assert caught.value.operation_id is not None


def left_by_dead(store: PostgresStore, *session_ids: str) -> None:
    """Leave sessions with a worker, and a task in each, of an owner that is dead."""
    store.enlist("dead")
    dead = Author(store, "dead")
    for session_id in session_ids:
        dead.write(session_id, "activate", claims=[WORKER])
        dead.write(session_id, ("begin_task", {"task_id": "t"}), claims=[TASK])
    store.dismiss("dead")


def heir_of(store: PostgresStore, name: str = "heir") -> Author:
    """Return an author that lives."""
    store.enlist(name)
    return Author(store, name)


def end_task(author: Author, session_id: str) -> None:
    """End the task of a session."""
    author.write(session_id, ("end_task", {"task_id": "t"}), releases=[TASK])


def begin_task(author: Author, session_id: str) -> None:
    """Begin it."""
    author.write(session_id, ("begin_task", {"task_id": "t"}), claims=[TASK])


def told(taken: tuple[Taken, ...]) -> dict[str, tuple[set[Work], int]]:
    """Return what was taken of each session, and as which attempt."""
    return {each.session_id: (set(each.work), each.attempts) for each in taken}


@pytest.mark.parametrize("retried", [True, False])
def test_postgres_doubts_keep_all_that_stands(opened: OpenStore, retried: bool) -> None:
    """What others ended of a take-over meanwhile hides nothing else that it took."""
    store, other = opened(retry_seconds=30 if retried else 0), opened()
    left_by_dead(other, *"abc")
    heir, third = heir_of(store), heir_of(other, "third")

    def meanwhile() -> None:
        end_task(third, "a")
        third.write("b", "touch", releases=[WORKER])
        third.write("b", "touch", claims=[WORKER])
        third.write("c", "terminate", releases=[WORKER, TASK])

    if retried:
        lose_answer(store, lands=True, then=meanwhile)
    else:
        in_doubt(store, lands=True)
        meanwhile()
    taken = store.take_over("heir", 9, restarting=True)
    assert told(taken) == {"a": ({WORKER}, 1), "b": ({TASK}, 0)}
    assert store._tokens.of("heir", "b") is store._tokens.of("heir", "c") is None
    heir.write("a", "touch")
    third.write("b", "touch")
    assert store.take_over("heir", 9, restarting=True) == ()


def test_postgres_doubts_take_nothing_that_others_recovered(opened: OpenStore) -> None:
    """A take-over that has not landed is nothing, though its owner does the same work by now."""
    store, other = opened(retry_seconds=0), opened()
    left_by_dead(other, "a", "b")
    heir, third = heir_of(store), heir_of(other, "third")
    in_doubt(store, lands=False)
    assert len(other.take_over("third", 9, restarting=True)) == 2
    for session_id in "ab":
        end_task(third, session_id)
        third.write(session_id, "touch", releases=[WORKER])
    heir.write("a", "touch", claims=[WORKER])
    begin_task(heir, "b")
    assert store.take_over("heir", 9, restarting=True) == ()
    assert store.work_of("a", "heir") == (WORKER,)
    assert store.work_of("b", "heir") == (TASK,)
    heir.write("a", "touch")


def test_postgres_doubts_know_one_take_over_from_another(opened: OpenStore) -> None:
    """What its owner has taken over with another call is not told again as what was in doubt."""
    store = opened(retry_seconds=0)
    left_by_dead(store, "a")
    heir = heir_of(store)
    in_doubt(store, lands=False)
    doubt = store._doubts.take("heir")
    assert doubt is not None
    taken = store.take_over("heir", 9, restarting=True)
    assert told(taken) == {"a": ({WORKER, TASK}, 1)}
    store._doubts.add(doubt)
    assert store.take_over("heir", 9, restarting=True) == ()
    heir.write("a", "touch")


def test_postgres_doubts_leave_tasks_that_were_begun_anew(opened: OpenStore) -> None:
    """A task that was taken over, ended, and begun anew by the same owner is its own."""
    store = opened(retry_seconds=0)
    left_by_dead(store, "a", "b")
    heir = heir_of(store)
    in_doubt(store, lands=True)
    end_task(heir, "a")
    begin_task(heir, "a")
    taken = store.take_over("heir", 9, restarting=True)
    assert told(taken) == {"a": ({WORKER}, 1), "b": ({WORKER, TASK}, 1)}


def test_postgres_doubts_leave_workers_that_were_claimed_anew(opened: OpenStore) -> None:
    """A worker that others let go of, and the same owner has claimed since, is its own."""
    store, other = opened(retry_seconds=0), opened()
    left_by_dead(other, "a")
    heir, third = heir_of(store), heir_of(other, "third")
    in_doubt(store, lands=True)
    third.write("a", "touch", releases=[WORKER])
    heir.write("a", "touch", claims=[WORKER])
    assert told(store.take_over("heir", 9, restarting=True)) == {"a": ({TASK}, 0)}
    assert store.work_of("a", "heir") == (TASK, WORKER)
    heir.write("a", "touch")


def test_postgres_doubts_outlast_begins_that_were_decided_before(opened: OpenStore) -> None:
    """A begin that was decided before the dead one's takes nothing away from a take-over."""
    store, other = opened(retry_seconds=0), opened()
    other.enlist("dead")
    dead = Author(other, "dead")
    dead.write("a", "activate", claims=[WORKER])
    heir = heir_of(store)
    late = heir.draft("a", ("begin_task", {"task_id": "t"}), claims=[TASK])
    begin_task(dead, "a")
    other.dismiss("dead")
    in_doubt(store, lands=True)
    with pytest.raises(Exception, match="revision"):
        store.commit(late)
    taken = store.take_over("heir", 9, restarting=True)
    assert told(taken) == {"a": ({WORKER, TASK}, 1)}


def test_postgres_doubts_are_asked_about_by_one_thread(opened: OpenStore) -> None:
    """Of two who take over at the same time, one is told what was in doubt."""
    store = opened(retry_seconds=0)
    left_by_dead(store, "a")
    heir_of(store)
    in_doubt(store, lands=True)
    barrier = threading.Barrier(2)

    def take() -> tuple[Taken, ...]:
        barrier.wait()
        return store.take_over("heir", 9, restarting=True)

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(take) for _ in range(2)]
    assert sorted(len(each.result()) for each in both) == [0, 1]


def test_postgres_doubts_stay_until_there_is_an_answer(
    opened: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be asked about is asked about by the next call, while its owner is here."""
    store = opened(retry_seconds=0)
    left_by_dead(store, "a")
    heir_of(store)
    in_doubt(store, lands=True)

    def cut_off(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("cut off")

    with monkeypatch.context() as broken:
        broken.setattr(TakenOver, "standing", cut_off)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                store.take_over("heir", 9, restarting=True)
    assert told(store.take_over("heir", 9, restarting=True)) == {"a": ({WORKER, TASK}, 1)}
    store.dismiss("heir")
    store.enlist("third")
    in_doubt(store, lands=True, owner_id="third")
    store.dismiss("third")
    assert store._doubts.take("third") is None


def test_postgres_doubts_leave_no_notes(opened: OpenStore, postgres: PostgresServer) -> None:
    """Of a take-over nothing is noted any longer once it is known, or whoever made it is gone."""
    store, other = opened(retry_seconds=0), opened()
    left_by_dead(store, "a", "b")
    heir_of(store)
    assert len(store.take_over("heir", 1, restarting=True)) == 1
    in_doubt(store, lands=True)
    heir_of(other, "third")
    assert other.take_over("third", 9, restarting=True) == ()
    assert len(other.marks("taken/")) == 2
    assert len(store.take_over("heir", 9, restarting=True)) == 1
    assert store.take_over("heir", 9, restarting=True) == ()
    assert other.marks("taken/") == ()
    store.dismiss("heir")
    assert len(other.take_over("third", 9, restarting=True)) == 2
    assert len(store.marks("taken/")) == 1
    other.dismiss("third")
    heir_of(store, "fourth")
    assert len(store.take_over("fourth", 9, restarting=True)) == 2
    assert store.take_over("fourth", 9, restarting=True) == ()
    assert store.marks("taken/") == ()
    assert store._doubts.answered == []


def test_postgres_doubts_do_no_harm_to_what_runs(opened: OpenStore) -> None:
    """A manager that took a session up by itself keeps it, whatever it had asked for before."""
    dead, store, other = opened(), opened(retry_seconds=0), opened()
    begun = SessionManager(dead)
    for session_id in "ab":
        begun.create(session_id, start=lambda _: Worker())
    dead.dismiss(begun._core.owner_id)
    with SessionManager(store) as mine, SessionManager(other) as others:
        lose_answer(store, lands=False)
        with pytest.raises(StoreUnavailableError):
            mine.recover()
        assert set(others.recover().released) == {"a", "b"}
        claimed, worker = mine._starting.adopt("a"), Worker()
        mine._workers.add("a", worker, claimed.owner_id)
        report = mine.recover()
        assert (report.released, report.ended, report.failed) == ((), (), ())
        assert store.work_in("a") == (WORKER,)
        assert worker.stops == 0
        mine.touch("a")
