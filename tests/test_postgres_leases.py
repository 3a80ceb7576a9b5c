"""Who lives by a PostgreSQL server's clock, and what becomes of those who do not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cutting import Proxy
from managing import Seconds, await_event
from postgres_server import PostgresServer

from session_fsm import FencedError, Put, StoreUnavailableError
from session_fsm.items import ItemWrites
from session_fsm.stores import PostgresStore
from session_fsm.stores.postgres_clock import DatabaseClock
from session_fsm.stores.records import Taken, Work
from session_fsm.testing.authors import Author, everything

WORKER, START, TASK = Work("worker"), Work("start"), Work("task", "t")
LEASE_SECONDS = 30.0
OpenStore = Callable[..., PostgresStore]


@pytest.fixture
def seconds() -> Seconds:
    """A clock of the machine that a test moves."""
    return Seconds()


@pytest.fixture
def opened(postgres_url: str) -> Iterator[OpenStore]:
    """Opens stores in one schema, as several machines do."""
    with ExitStack() as stack:

        def open_one(**more: Any) -> PostgresStore:
            return stack.enter_context(closing(PostgresStore(postgres_url, **more)))

        yield open_one


def author_of(store: PostgresStore, name: str = "author") -> Author:
    """Return an author that lives."""
    store.enlist(name)
    return Author(store, name)


def expire(postgres: PostgresServer, store: PostgresStore, *owners: str) -> None:
    """Let the time of owners pass at once, as the server tells it."""
    postgres.execute(
        f"UPDATE {store._sql.quoted}.owner SET expires_at = now() - interval '1 second'"
        " WHERE owner_id = ANY(%s)",
        [list(owners)],
    )


def revive(postgres: PostgresServer, store: PostgresStore, owner_id: str) -> None:
    """Do what no store does: have a dead owner live again."""
    postgres.execute(
        f"INSERT INTO {store._sql.quoted}.owner VALUES (%s, now() + interval '1 hour')"
        " ON CONFLICT (owner_id) DO UPDATE SET expires_at = excluded.expires_at",
        [owner_id],
    )


# --- leases ----------------------------------------------------------------------------------


def test_postgres_leases_end_by_the_servers_clock(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """An owner whose lease has ended changes nothing, and is never alive again."""
    store = postgres_store
    author = author_of(store)
    author.write("a", "activate", claims=[WORKER])
    author.write("c", "activate")
    late = [author.draft("a", "touch"), author.draft("b", "activate"), author.draft("c", "touch")]
    expire(postgres, store, "author")
    before = everything(store, "author")
    for commit in late:
        with pytest.raises(FencedError) as caught:
            store.commit(commit)
        assert (caught.value.session_id, caught.value.owner_id) == (commit.session_id, "author")
    assert store._leases.renew()
    assert not store.is_alive("author")
    assert everything(store, "author") == before


def test_postgres_leases_are_renewed(
    postgres: PostgresServer, opened: OpenStore, seconds: Seconds
) -> None:
    """A renewal moves the end of every lease, here and in the database, from when it was sent."""
    store = opened(seconds=seconds, lease_seconds=LEASE_SECONDS)
    authors = [author_of(store, name) for name in ("one", "two")]
    table = f"{store._sql.quoted}.owner"
    for _ in range(5):
        seconds.passed += LEASE_SECONDS / 3
        soon = f"UPDATE {table} SET expires_at = clock_timestamp() + interval '5 seconds'"
        postgres.execute(soon)
        assert store._leases.renew()
        left = f"SELECT expires_at > clock_timestamp() + interval '20 seconds' FROM {table}"
        assert postgres.execute(left) == [(True,)] * 2
        for author in authors:
            author.write(author.name, *(("touch",) if store.load(author.name) else ("activate",)))
    assert store.tail("one")[0] == 6


def test_postgres_leases_end_earlier_for_the_owner(opened: OpenStore, seconds: Seconds) -> None:
    """An owner that could not renew gives up by its own clock, before the database does."""
    store, other = opened(seconds=seconds, lease_seconds=LEASE_SECONDS), opened()
    told = threading.Event()
    store.enlist("author", told.set)
    author = Author(store)
    author.write("a", "activate", claims=[WORKER])
    draft = author.draft("a", "touch")
    seconds.passed += LEASE_SECONDS * 2 / 3 - 0.1
    author.write("b", "activate")
    assert not told.is_set()
    seconds.passed += 0.1
    with pytest.raises(FencedError) as caught:
        store.commit(draft)
    assert caught.value.owner_id == "author"
    await_event(told)
    assert store.tail("a")[0] == 2
    with pytest.raises(FencedError):
        store.write_items("a", 2, _writes(), "x", "author")
    # Once it has stopped what it ran, nobody needs to wait for the end of its lease.
    while not store._leases._leases["author"].is_told:
        pass
    assert store._leases.renew()
    assert not other.is_alive("author")
    with pytest.raises(FencedError):
        store.commit(draft)
    store.dismiss("author")


def _writes() -> ItemWrites:
    return ItemWrites(datetime(2026, 3, 1, tzinfo=UTC), (Put("files", "k", 1),))


def test_postgres_leases_lapse_until_all_is_stopped(opened: OpenStore, seconds: Seconds) -> None:
    """Whoever has lapsed is told again until it has stopped; until then it is not given up."""
    store = opened(seconds=seconds, lease_seconds=0.3, margin_seconds=0.0)
    calls: list[str] = []
    thrice = threading.Event()

    def lapsed() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) < 3:
            raise RuntimeError("not yet")
        thrice.set()

    store.enlist("author", lapsed)
    seconds.passed += 10
    with pytest.raises(FencedError):
        store.commit(Author(store).draft("a", "activate"))
    await_event(thrice)
    assert len(calls) == 3
    assert threading.current_thread().name not in calls


def test_postgres_leases_that_the_server_ended_are_told(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """An owner that the server counts as dead is told so with the next renewal."""
    told = threading.Event()
    postgres_store.enlist("author", told.set)
    postgres_store.enlist("other")
    expire(postgres, postgres_store, "author")
    assert postgres_store._leases.renew()
    await_event(told)
    Author(postgres_store, "other").write("a", "activate")


@pytest.mark.parametrize("spoilt", ["session_fsm lapsed", "renew"])
def test_postgres_leases_are_kept_whatever_fails_once(
    opened: OpenStore, seconds: Seconds, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    """Owners are told that they have lapsed though there was no thread, or a renewal failed."""
    store = opened(seconds=seconds, lease_seconds=0.3, margin_seconds=0.0)
    told, failed = threading.Event(), threading.Event()
    start, renew = threading.Thread.start, store._leases.renew

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name == spoilt and not failed.is_set():
            failed.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    def renew_or_not() -> bool:
        if spoilt == "renew" and not failed.is_set():
            failed.set()
            raise RuntimeError("no renewal")
        return renew()

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    monkeypatch.setattr(store._leases, "renew", renew_or_not)
    store.enlist("author", told.set)
    if spoilt == "renew":
        await_event(failed)
    seconds.passed += 10
    with pytest.raises(FencedError):
        store.commit(Author(store).draft("a", "activate"))
    await_event(told)
    assert failed.is_set()
    assert all(thread.is_alive() for thread in store._leases._threads)


def test_postgres_leases_need_their_threads(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner for whom nobody could renew is not made known; the next one may be."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "session_fsm watch":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as few:
        few.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            postgres_store.enlist("author")
    assert not postgres_store.is_alive("author")
    told = threading.Event()
    postgres_store.enlist("author", told.set)
    postgres_store._leases._leases["author"].end = 0.0
    with pytest.raises(FencedError):
        postgres_store.commit(Author(postgres_store).draft("a", "activate"))
    await_event(told)


def test_postgres_leases_need_no_working_connection_of_the_store(
    opened: OpenStore, seconds: Seconds
) -> None:
    """Leases are renewed while every connection of the store is in use."""
    store = opened(seconds=seconds, max_connections=1)
    store.enlist("author")
    with store._connections.link():
        seconds.passed += LEASE_SECONDS / 2
        assert store._leases.renew()
        seconds.passed += LEASE_SECONDS / 2
        store._leases.check("author", "a")


@pytest.fixture
def limited(postgres: PostgresServer, postgres_url: str, opened: OpenStore) -> Iterator[str]:
    """The URL of a store for a role that may have three connections."""
    schema = opened()._sql.quoted
    role = f"limited_{postgres.new_schema()}"
    for text in (
        f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 3",
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
    ):
        postgres.execute(text)
    yield postgres_url.replace("postgres@", f"{role}@")
    postgres.execute(f"DROP OWNED BY {role}")
    postgres.execute(f"DROP ROLE {role}")


def test_postgres_leases_have_their_connection_before_callers_use_up_all(limited: str) -> None:
    """Who has used up what the role may have keeps no heartbeat from the connection that it has."""
    with closing(PostgresStore(limited, retry_seconds=0)) as store, ExitStack() as held:
        store.enlist("author")
        for _ in range(2):
            held.enter_context(store._connections.link())
        with pytest.raises(psycopg.OperationalError):
            held.enter_context(store._connections.link())
        assert store._leases.renew()


def test_postgres_leases_wait_for_the_connection_of_their_heartbeats(
    opened: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that can't be reached for a moment is waited for, unless the store is closed."""
    store = opened()
    beats, misses = store._beats, [2]
    ask = beats.outside_batch

    def refuse_twice(work: Callable[..., Any]) -> Any:
        if misses[0]:
            misses[0] -= 1
            raise StoreUnavailableError(problem="nobody there")
        return ask(work)

    monkeypatch.setattr(beats, "outside_batch", refuse_twice)
    store.enlist("author")
    assert misses == [0]
    assert store.is_alive("author")
    other = opened()
    other.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        other.enlist("late")


def test_postgres_leases_begin_with_a_connection_or_not_at_all(
    limited: str, opened: OpenStore
) -> None:
    """Where none is left for heartbeats, nobody is enlisted, and it is said why."""
    with closing(PostgresStore(limited, retry_seconds=0)) as store:
        with ExitStack() as held:
            for _ in range(3):
                held.enter_context(store._connections.link())
        with pytest.raises(StoreUnavailableError, match="too many connections"):
            store.enlist("author")
        assert not opened().is_alive("author")


def test_postgres_leases_survive_a_lost_answer(postgres: PostgresServer, postgres_url: str) -> None:
    """An owner is made known though the answer was lost; two cannot have one name."""
    with Proxy(postgres.port) as proxy:
        url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        with closing(PostgresStore(url)) as store, closing(PostgresStore(postgres_url)) as other:
            proxy.lose_answer(to=b"author")
            store.enlist("author")
            assert proxy.happened.is_set()
            assert other.is_alive("author")
            with pytest.raises(StoreUnavailableError, match="lives already"):
                other.enlist("author")
            Author(store).write("a", "activate")
            proxy.refuse()
            proxy.cut_all()
            store.dismiss("author")  # nobody can be told: its lease ends by itself
            assert other.is_alive("author")
            proxy.refuse(refusing=False)


def test_postgres_leases_end_with_the_store(opened: OpenStore, postgres_url: str) -> None:
    """Whoever closes a store declares its owners dead."""
    other = opened()
    with closing(PostgresStore(postgres_url)) as store:
        author_of(store).write("a", "activate", claims=[WORKER])
        assert other.abandoned() == ()
    assert not other.is_alive("author")
    assert [each.session_id for each in other.abandoned()] == ["a"]


def test_postgres_leases_fence_whatever_is_written(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """A process none of whose owners lives writes nothing at all; one without owners may."""
    store = postgres_store
    author = author_of(store)
    author.write("a", "activate", claims=[TASK])
    author.write("end", "activate", "terminate", "finish")
    author.write("long", "activate", *["touch"] * 5)
    checkpoint = author.shorter("long", keep=2)
    expire(postgres, store, "author")
    before = everything(store, "author")
    for write in (
        lambda: author.put("a", Put("files", "k", 1)),
        lambda: author.bury("end"),
        lambda: store.compact(checkpoint),
        lambda: store.set_mark("m", b"1"),
        lambda: store.release("a", [TASK], "author"),
    ):
        with pytest.raises(FencedError):
            write()
    assert everything(store, "author") == before
    assert store.mark("m") is None
    store.dismiss("author")
    with pytest.raises(FencedError):
        author.put("a", Put("files", "k", 1))
    author.bury("end")
    assert store.compact(checkpoint) > 0


# --- tokens ----------------------------------------------------------------------------------


def owned(postgres: PostgresServer, store: PostgresStore, session_id: str) -> tuple[Any, ...]:
    """Return whose a session is, and its token."""
    [row] = postgres.execute(
        f"SELECT owner_id, token FROM {store._sql.quoted}.session WHERE session_id = %s",
        [session_id],
    )
    return tuple(row)


def test_postgres_leases_tokens_grow_with_each_change_of_hands(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """A session is owned by who starts or runs its worker, and each new owner has a new token."""
    store = postgres_store
    one, two = author_of(store, "one"), author_of(store, "two")
    one.write("a", claims=[START])
    assert owned(postgres, store, "a") == ("one", 1)
    one.write("a", "activate", claims=[WORKER], releases=[START])
    assert owned(postgres, store, "a") == ("one", 1)
    two.write("a", "touch", claims=[TASK])
    assert owned(postgres, store, "a") == ("one", 1)
    two.write("a", "touch", claims=[WORKER])
    assert owned(postgres, store, "a") == ("two", 2)
    two.write("a", "touch", releases=[WORKER])
    assert owned(postgres, store, "a") == (None, 2)
    one.write("b", "activate", claims=[WORKER, START])
    one.write("b", "touch", releases=[START])
    assert owned(postgres, store, "b") == ("one", 1)
    store.release("b", [WORKER], "one")
    assert owned(postgres, store, "b") == (None, 1)
    two.write("b", "touch")
    two.write("b", "touch", claims=[START])
    assert owned(postgres, store, "b") == ("two", 2)


def test_postgres_leases_old_tokens_are_refused(
    postgres: PostgresServer, opened: OpenStore
) -> None:
    """An owner from whom a session was taken writes nothing to it, though all else is right."""
    store, other = opened(), opened()
    author, heir = author_of(store), author_of(other, "heir")
    author.write("a", "activate", claims=[WORKER])
    author.write("mine", "activate", claims=[WORKER])
    late = author.draft("a", "touch")
    expire(postgres, store, "author")
    taken = other.take_over("heir", 1, restarting=True)
    assert [each.session_id for each in taken] == ["a"]
    assert owned(postgres, store, "a") == ("heir", 2)
    revive(postgres, store, "author")
    before = everything(other, "author", "heir")
    with pytest.raises(FencedError) as caught:
        store.commit(late)
    assert (caught.value.session_id, caught.value.owner_id) == ("a", "author")
    with pytest.raises(FencedError):
        author.put("a", Put("files", "k", 1))
    with store.batch(), pytest.raises(FencedError):
        store.commit(late)
    assert everything(other, "author", "heir") == before
    author.write("mine", "touch")
    heir.write("a", "touch")
    heir.put("a", Put("files", "k", 1))
    assert owned(postgres, store, "a") == ("heir", 2)


def test_postgres_leases_tokens_of_a_batch_that_is_undone_are_forgotten(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """A token counts as far as the commit that gave it does."""
    author = author_of(postgres_store)
    author.write("a", "activate")
    with pytest.raises(ZeroDivisionError), postgres_store.batch():
        author.write("a", "touch", claims=[WORKER])
        raise ZeroDivisionError
    author.write("a", "touch")
    with postgres_store.batch():
        author.write("a", "touch", claims=[WORKER])
    author.write("a", "touch")
    assert owned(postgres, postgres_store, "a") == ("author", 1)


# --- taking over -----------------------------------------------------------------------------


def test_postgres_leases_each_session_is_taken_once(
    postgres: PostgresServer, opened: OpenStore
) -> None:
    """However many nodes ask at once, each session of the dead goes to exactly one of them."""
    dead = opened()
    authors = [author_of(dead, name) for name in ("one", "two")]
    ids = [f"s{number:03}" for number in range(60)]
    for number, session_id in enumerate(ids):
        authors[number % 2].write(session_id, "activate", claims=[WORKER])
        authors[1].write(session_id, "touch", claims=[TASK])
    expire(postgres, dead, "one", "two")
    heirs = [opened() for _ in range(4)]
    barrier = threading.Barrier(len(heirs))

    def take(store: PostgresStore, name: str) -> list[str]:
        store.enlist(name)
        barrier.wait()
        found: list[str] = []
        while taken := store.take_over(name, 5, restarting=True):
            assert {each.holder_id for each in taken} == {name}
            assert all(each.attempts == (WORKER in each.work) for each in taken)
            found += dict.fromkeys(each.session_id for each in taken)
        return found

    with ThreadPoolExecutor(len(heirs)) as pool:
        found = list(pool.map(take, heirs, ("a", "b", "c", "d")))
    assert sorted(each for some in found for each in some) == ids
    for name, store, some in zip("abcd", heirs, found, strict=True):
        for session_id in some:
            assert owned(postgres, store, session_id)[0] == name
            assert set(store.work_of(session_id, name)) == {WORKER, TASK}
    assert heirs[0].abandoned() == ()
    rows = f"SELECT count(*) FROM {dead._sql.quoted}.owner WHERE owner_id IN ('one', 'two')"
    assert postgres.execute(rows) == [(0,)]


def test_postgres_leases_a_task_of_the_dead_leaves_the_owner_alone(
    postgres: PostgresServer, opened: OpenStore
) -> None:
    """Where only a task is taken over, whoever runs the worker keeps the session and its token."""
    store, other = opened(), opened()
    author, dead = author_of(store), author_of(other, "dead")
    author.write("a", "activate", claims=[WORKER])
    dead.write("a", "touch", claims=[TASK])
    other.dismiss("dead")
    other.enlist("heir")
    [taken] = other.take_over("heir", 9, restarting=True)
    assert taken.work == (TASK,)
    assert owned(postgres, store, "a") == ("author", 1)
    author.write("a", "touch")


def test_postgres_leases_a_renewal_under_way_is_waited_for(
    postgres: PostgresServer, opened: OpenStore
) -> None:
    """An owner that renews at the last moment keeps all it has: whoever takes looks again."""
    store, other = opened(), opened()
    author = author_of(store)
    author.write("a", "activate", claims=[WORKER])
    expire(postgres, store, "author")
    other.enlist("heir")
    with ThreadPoolExecutor(1) as pool, closing(postgres.connect()) as connection:
        with connection.transaction():
            # A renewal that the server has accepted, and not committed yet.
            connection.execute(
                f"UPDATE {store._sql.quoted}.owner SET expires_at = now() + interval '1 hour'"
                " WHERE owner_id = 'author'".encode()
            )
            taken = pool.submit(other.take_over, "heir", 9, restarting=True)
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while postgres.execute(waits) == [(0,)]:
                assert not taken.done()
        assert taken.result() == ()
    author.write("a", "touch")


def test_postgres_leases_attempts_are_counted_for_a_while(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """Taking over counts as one more attempt, until the last one is long ago."""
    store = postgres_store
    author_of(store, "0").write("a", "activate", claims=[WORKER])
    for number in range(1, 4):
        expire(postgres, store, str(number - 1))
        store.enlist(str(number))
        [taken] = store.take_over(str(number), 9, restarting=True)
        assert (taken.owner_id, taken.attempts) == (str(number - 1), number)
    table = f"{store._sql.quoted}.session"
    postgres.execute(f"UPDATE {table} SET taken_at = taken_at - interval '61 minutes'")
    expire(postgres, store, "3")
    store.enlist("4")
    [taken] = store.take_over("4", 9, restarting=True)
    assert taken.attempts == 1
    assert owned(postgres, store, "a") == ("4", 5)


def test_postgres_leases_a_lost_answer_loses_nothing_that_was_taken(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """What was taken over is told in the end, though the answer to the COMMIT was lost."""
    with Proxy(postgres.port) as proxy:
        url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        with closing(PostgresStore(url, retry_seconds=0.2)) as store:
            dead = author_of(store, "dead")
            for session_id in "ab":
                dead.write(session_id, "activate", claims=[WORKER])
            store.dismiss("dead")
            heir = author_of(store, "heir")
            proxy.lose_answer(to=b"COMMIT")
            [taken] = store.take_over("heir", 1, restarting=True)
            assert proxy.happened.is_set()
            assert (taken.session_id, taken.attempts) == ("a", 1)
            heir.write("a", "touch")
            proxy.lose_answer(to=b"COMMIT")
            with ThreadPoolExecutor(1) as pool:
                taking = pool.submit(store.take_over, "heir", 1, restarting=True)
                await_event(proxy.happened)
                proxy.refuse()
                try:
                    [taken] = taking.result()
                except StoreUnavailableError:
                    proxy.refuse(refusing=False)
                    [taken] = store.take_over("heir", 1, restarting=True)
            assert (taken.session_id, taken.attempts) == ("b", 1)
            proxy.refuse(refusing=False)
            heir.write("b", "touch")
            assert store.take_over("heir", 1, restarting=True) == ()


def test_postgres_leases_a_take_over_under_way_is_waited_for(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """A COMMIT that is slow, and whose connection is cut, is waited for: all it took is told."""
    with Proxy(postgres.port) as proxy, ThreadPoolExecutor(1) as pool, ExitStack() as held:
        url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        store = held.enter_context(closing(PostgresStore(url)))
        dead = author_of(store, "dead")
        for session_id in "ab":
            dead.write(session_id, "activate", claims=[WORKER])
        store.dismiss("dead")
        heir = author_of(store, "heir")
        gate = gated(postgres, store, held)
        taking = pool.submit(store.take_over, "heir", 9, restarting=True)
        await_waiting(postgres, 1, taking)
        proxy.cut_all()
        await_waiting(postgres, 2, taking)
        gate.close()
        taken = taking.result()
        assert [(each.session_id, each.attempts) for each in taken] == [("a", 1), ("b", 1)]
        heir.write("a", "touch")
        assert store.take_over("heir", 9, restarting=True) == ()


def test_postgres_leases_a_take_over_in_doubt_is_asked_for_again(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """What is not known to have been taken in time is asked for by each that takes over next."""
    with Proxy(postgres.port) as proxy, ThreadPoolExecutor(1) as pool, ExitStack() as held:
        url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        patience = {"statement_timeout_seconds": None, "retry_seconds": 0.2}
        store = held.enter_context(closing(PostgresStore(url, **patience)))  # type: ignore[arg-type]
        author_of(store, "dead").write("a", "activate", claims=[WORKER])
        store.dismiss("dead")
        store.enlist("heir")
        gate = gated(postgres, store, held)
        taking = pool.submit(store.take_over, "heir", 9, restarting=True)
        await_waiting(postgres, 1, taking)
        for _ in range(2):
            proxy.refuse()
            proxy.cut_all()
            with pytest.raises(StoreUnavailableError):
                taking.result()
            proxy.refuse(refusing=False)
            taking = pool.submit(store.take_over, "heir", 9, restarting=True)
            await_waiting(postgres, 2, taking)
        gate.close()
        assert [each.session_id for each in taking.result()] == ["a"]


def test_postgres_leases_a_burial_under_way_is_waited_for(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """Who buries a session is told that it has, though the COMMIT was slow, and its answer lost."""
    with Proxy(postgres.port) as proxy, ThreadPoolExecutor(1) as pool, ExitStack() as held:
        url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        store = held.enter_context(closing(PostgresStore(url)))
        author = author_of(store)
        author.write("a", "activate", "terminate", "finish")
        gate = gated(postgres, store, held, "DELETE")
        burying = pool.submit(author.bury, "a")
        await_waiting(postgres, 1, burying)
        proxy.cut_all()
        await_waiting(postgres, 2, burying)
        gate.close()
        burying.result()
        assert store.load("a") is None


def gated(
    postgres: PostgresServer,
    store: PostgresStore,
    held: ExitStack,
    change: str = "UPDATE OF owner_id",
) -> Any:
    """Have each COMMIT that changes a session so wait until what this returns is closed."""
    schema = store._sql.quoted
    postgres.execute(f"CREATE TABLE {schema}.gate (one int)")
    postgres.execute(
        f"CREATE FUNCTION {schema}.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" LOCK TABLE {schema}.gate IN ACCESS SHARE MODE; RETURN NULL; END $$"
    )
    postgres.execute(
        f"CREATE CONSTRAINT TRIGGER slow AFTER {change} ON {schema}.session"
        f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.wait()"
    )
    gate = held.enter_context(closing(postgres.connect()))
    gate.autocommit = False
    gate.execute(f"LOCK TABLE {schema}.gate".encode())
    return gate


def await_waiting(postgres: PostgresServer, count: int, taking: Future[Any]) -> None:
    """Wait until so many at least wait for a lock in the server, while something is being done."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while postgres.execute(waits)[0][0] < count:
        assert not taking.done(), taking.result()


@pytest.mark.parametrize("kind", ["items", "bury", "compact"])
def test_postgres_leases_a_writer_that_was_paused_is_not_overtaken(
    postgres: PostgresServer, opened: OpenStore, kind: str
) -> None:
    """Between the look at who writes and the write, nobody takes the session over."""
    store, other = opened(), opened()
    author = author_of(store)
    other.enlist("heir")
    author.write("a", "activate", *["touch"] * 5, claims=[WORKER])
    checkpoint = author.shorter("a", keep=2)
    if kind == "bury":
        author.write("a", "terminate", "finish")
    check = store._check_writer
    taken: list[Taken] = []

    def paused(link: Any, session_id: str | None = None, owner_id: str | None = None) -> None:
        check(link, session_id, owner_id)
        expire(postgres, store, "author")
        taken.extend(other.take_over("heir", 9, restarting=True))

    store._check_writer = paused  # type: ignore[method-assign]
    writes: dict[str, Callable[[], object]] = {
        "items": lambda: author.put("a", Put("files", "k", 1)),
        "bury": lambda: author.bury("a"),
        "compact": lambda: store.compact(checkpoint),
    }
    writes[kind]()
    assert taken == []
    assert len(other.take_over("heir", 9, restarting=True)) == (kind != "bury")


@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("newer", [None, b"newer"])
def test_postgres_leases_a_lost_answer_overwrites_no_newer_mark(
    postgres_url: str, lands: bool, newer: bytes | None
) -> None:
    """A mark whose answer was lost is set again only if nobody has changed it since."""
    with (
        closing(PostgresStore(postgres_url)) as store,
        closing(PostgresStore(postgres_url)) as other,
    ):
        other.set_mark("m", b"before")
        end, lost = store._connections._end, threading.Event()

        def cut(link: Any) -> None:
            if lost.is_set():
                end(link)
                return
            lost.set()
            if lands:
                end(link)
            link.close()
            if newer is not None:
                other.set_mark("m", newer)
            raise psycopg.OperationalError("lost")

        store._connections._end = cut  # type: ignore[method-assign]
        store.set_mark("m", b"mine")
        assert lost.is_set()
        assert other.mark("m") == (newer or b"mine")


# --- the clock -------------------------------------------------------------------------------


def test_postgres_leases_clock_is_the_databases(postgres_store: PostgresStore) -> None:
    """A store's clock tells what the database does, as near as a round trip lets it know."""
    before = postgres_store.clock.now()
    [(now,)] = postgres_store._rows("SELECT clock_timestamp() AT TIME ZONE 'UTC'", ())
    after = postgres_store.clock.now()
    second = timedelta(seconds=1)
    assert before - second <= now.replace(tzinfo=UTC) <= after + second
    assert before <= after


def test_postgres_leases_clock_goes_by_the_best_measurement() -> None:
    """Of measurements that agree the most exact one counts; one that does not counts alone."""
    seconds = Seconds()
    clock = DatabaseClock(seconds)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    at = seconds.passed
    clock.measure(at - 1, at + 1, start)
    assert clock.now() == start
    clock.measure(at - 0.25, at + 0.25, start + timedelta(seconds=0.5))
    assert clock.now() == start + timedelta(seconds=0.5)
    clock.measure(at - 2, at + 2, start - timedelta(seconds=1))
    assert clock.now() == start + timedelta(seconds=0.5)
    seconds.passed += 60
    assert clock.now() == start + timedelta(seconds=60.5)
    hour = timedelta(hours=1)
    clock.measure(at + 60, at + 60, start + hour)
    assert clock.now() == start + hour
    clock.measure(at + 60, at + 60, start)
    assert clock.now() == start + hour
    seconds.passed += 7200
    assert clock.now() == start + 2 * hour
