"""What networks and servers do to a PostgreSQL store: nothing is lost, and nothing done twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from time import monotonic
from typing import Any

import attrs
import psycopg
import pytest
from cutting import Proxy
from postgres_server import PostgresServer

from session_fsm import (
    Put,
    RevisionConflictError,
    SessionManager,
    SessionNotFoundError,
    StoreUnavailableError,
)
from session_fsm.history import audit
from session_fsm.stores import PostgresStore, postgres_connection, postgres_writer
from session_fsm.stores.postgres_commit import PreparedCommit, Row
from session_fsm.stores.postgres_links import Connection
from session_fsm.stores.records import Commit, Work
from session_fsm.testing.authors import BEGINNING, END_OF_TIME, Author, routes

UPDATE = b"UPDATE"
COMMIT = b"COMMIT"


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    """A proxy before the server."""
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def opened(
    postgres: PostgresServer, proxy: Proxy, postgres_url: str
) -> Iterator[Callable[..., PostgresStore]]:
    """Opens stores whose connections go through the proxy."""
    stores: list[PostgresStore] = []

    def open_one(**more: Any) -> PostgresStore:
        url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        stores.append(PostgresStore(url, **more))
        return stores[-1]

    yield open_one
    proxy.refuse(refusing=False)
    for store in stores:
        store.close()


def author_of(store: PostgresStore, name: str = "author") -> Author:
    """Return an author that lives."""
    store.enlist(name)
    return Author(store, name)


def begun(store: PostgresStore) -> tuple[Author, Commit]:
    """Return an author, and a commit that it has not made yet."""
    author = author_of(store)
    author.write("a", "activate")
    author.write("a", "touch")  # what is sent twice is prepared: from now on it goes in one piece
    return author, author.draft("a", "go_idle", claims=[Work("task", "t")])


def assert_once(store: PostgresStore, commit: Commit) -> None:
    """See that a commit has landed, once."""
    assert store.landed(commit.session_id, commit.operation_id)
    assert store.tail(commit.session_id)[0] == commit.expected_revision + len(commit.steps)
    assert audit(store.history(commit.session_id), store.lifecycle)[0] == ()
    assert set(store.work_in(commit.session_id)) == set(commit.claims)
    assert store.check() == ()


def test_postgres_faults_a_lost_answer_is_asked_for(
    proxy: Proxy, opened: Callable[..., PostgresStore]
) -> None:
    """A commit whose answer is lost has landed, once, and its caller never knows."""
    store = opened()
    _, commit = begun(store)
    proxy.lose_answer(to=commit.operation_id.encode())
    store.commit(commit)
    assert proxy.happened.is_set()
    assert_once(store, commit)


def test_postgres_faults_a_lost_request_is_sent_again(
    proxy: Proxy, opened: Callable[..., PostgresStore]
) -> None:
    """A commit that never arrived is made by another attempt."""
    store = opened()
    _, commit = begun(store)
    proxy.lose_request(of=commit.operation_id.encode())
    store.commit(commit)
    assert proxy.happened.is_set()
    assert_once(store, commit)


@pytest.mark.parametrize("fate", ["compacted", "purged"])
def test_postgres_faults_what_is_gone_is_not_decided_anew(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """A commit that has left no trace when it is asked for is told as one that nobody knows of."""
    send = postgres_writer._sent_together
    with (
        closing(PostgresStore(postgres_url)) as store,
        closing(PostgresStore(postgres_url)) as others,
    ):
        manager, other = SessionManager(store), SessionManager(others)
        manager.create("a")

        def lose(link: Connection, changes: Sequence[PreparedCommit]) -> list[Row | None]:
            monkeypatch.setattr(postgres_writer, "_sent_together", send)
            send(link, changes)
            assert other.get("a").state.metadata == {"n": 1}
            if fate == "compacted":
                other.touch("a")
                assert other.compact("a", keep=1) > 0
            else:
                other.terminate("a")
                assert other.purge(ended_before=END_OF_TIME) == 1
            link.close()
            raise psycopg.OperationalError("lost")

        monkeypatch.setattr(postgres_writer, "_sent_together", lose)
        with pytest.raises(StoreUnavailableError, match="compacted, or removed") as caught:
            manager.update("a", metadata=lambda found: {"n": found.get("n", 0) + 1})
        assert caught.value.operation_id is not None
        if fate == "compacted":
            assert manager.get("a").state.metadata == {"n": 1}
        else:
            assert [event.kind for event in manager.history("a")] == ["purged"]
        manager.close()
        other.close()


@pytest.mark.parametrize("lose", [Proxy.lose_answer, Proxy.lose_request])
def test_postgres_faults_steps_are_made_once(
    lose: Callable[[Proxy, bytes], None], proxy: Proxy, opened: Callable[..., PostgresStore]
) -> None:
    """What goes in one transaction, of several steps or with items, is made once, whole."""
    store = opened()
    author, _ = begun(store)
    made = [
        ("a", ("go_idle", "resume", "go_idle"), ()),
        ("a", ("resume",), (Put("files", "k", 1),)),
        ("b", ("activate", "touch"), ()),
    ]
    for session_id, moves, writes in made:
        commit = author.draft(session_id, *moves, writes=writes)
        lose(proxy, COMMIT)
        store.commit(commit)
        assert proxy.happened.is_set()
        assert_once(store, commit)
    [item] = store.items("a", "files", 9, None, BEGINNING)
    assert item.version == 1


def test_postgres_faults_a_group_lands_once(
    proxy: Proxy, opened: Callable[..., PostgresStore]
) -> None:
    """Commits of many threads land once each, whatever is cut while they are written."""
    store = opened()
    author = author_of(store)
    names = [f"s{number}" for number in range(16)]
    for name in names:
        author.write(name, "activate")
    barrier = threading.Barrier(len(names) + 1)

    def move(name: str) -> None:
        own = Author(store, "author")
        for step in range(6):
            commit = own.draft(name, "go_idle" if step % 2 == 0 else "resume")
            commit = own_operation(commit, f"{name}/{step}")
            if step == 0:
                barrier.wait()
            store.commit(commit)
            assert store.landed(name, commit.operation_id)

    with ThreadPoolExecutor(len(names)) as pool:
        moving = [pool.submit(move, name) for name in names]
        barrier.wait()
        for lose in (proxy.lose_answer, proxy.lose_request) * 4:
            lose()
            if not proxy.happened.wait(5.0):
                break
        for each in moving:
            each.result()
    assert [store.tail(name)[0] for name in names] == [8] * len(names)
    assert store.check() == ()


def own_operation(commit: Commit, operation_id: str) -> Commit:
    """Return a commit under another operation id."""
    return attrs.evolve(commit, operation_id=operation_id)


def test_postgres_faults_nobody_knows_what_may_still_arrive(
    postgres: PostgresServer, proxy: Proxy, opened: Callable[..., PostgresStore], postgres_url: str
) -> None:
    """An operation without an answer is open until it is found, or the session has moved on."""
    store = opened(retry_seconds=0.2)
    author, commit = begun(store)
    proxy.hold_request(of=commit.operation_id.encode())
    proxy.refuse()
    with pytest.raises(StoreUnavailableError) as caught:
        store.commit(commit)
    assert proxy.happened.is_set()
    assert caught.value.operation_id == commit.operation_id
    proxy.refuse(refusing=False)
    assert store.tail("a")[0] == commit.expected_revision
    with pytest.raises(StoreUnavailableError) as caught:
        store.landed("a", commit.operation_id)
    assert caught.value.operation_id == commit.operation_id
    proxy.deliver()
    with closing(postgres.connect()) as connection:
        while not connection.execute(  # it arrives at the server when it does
            f"SELECT 1 FROM {store._sql.quoted}.session_event WHERE operation_id = %s".encode(),
            [commit.operation_id],
        ).fetchall():
            pass
    assert store.landed("a", commit.operation_id)
    assert author.draft("a", "resume").expected_revision == commit.expected_revision + 1


def test_postgres_faults_what_is_overtaken_never_lands(
    proxy: Proxy, opened: Callable[..., PostgresStore], postgres_url: str
) -> None:
    """An operation that arrives when the session has moved on changes nothing."""
    store = opened(retry_seconds=0.2)
    author, commit = begun(store)
    proxy.hold_request(of=commit.operation_id.encode())
    proxy.refuse()
    with pytest.raises(StoreUnavailableError):
        store.commit(commit)
    proxy.refuse(refusing=False)
    other = own_operation(author.draft("a", "touch"), "other")
    store.commit(other)
    assert not store.landed("a", commit.operation_id)
    proxy.deliver()
    assert not store.landed("a", commit.operation_id)
    assert store.landed("a", "other")
    assert store.work_in("a") == ()


@pytest.mark.parametrize("lose", [Proxy.lose_answer, Proxy.lose_request])
def test_postgres_faults_all_else_is_written_once(
    lose: Callable[[Proxy, bytes], None], proxy: Proxy, opened: Callable[..., PostgresStore]
) -> None:
    """Items, marks, releases, checkpoints and burials survive a lost answer to their COMMIT."""
    store = opened()
    author = author_of(store)
    author.write("a", "activate", claims=[Work("task", "t")])
    author.write("gone", *routes(store.lifecycle)[store.lifecycle.final[0]])
    lose(proxy, COMMIT)
    store.set_mark("m", b"1")
    assert proxy.happened.is_set()
    assert store.mark("m") == b"1"
    lose(proxy, COMMIT)
    store.drop_mark("m")
    assert store.mark("m") is None
    lose(proxy, COMMIT)
    [item] = author.put("a", Put("files", "k", 1))
    assert getattr(item, "version", None) == 1
    lose(proxy, COMMIT)
    store.release("a", [Work("task", "t")], "author")
    assert store.work_in("a") == ()
    lose(proxy, COMMIT)
    author.bury("gone")
    assert store.load("gone") is None
    assert proxy.happened.is_set()
    with pytest.raises(SessionNotFoundError):
        author.put("gone", Put("files", "k", 1))
    assert store.check() == ()


def test_postgres_faults_a_batch_is_not_done_again(
    proxy: Proxy, opened: Callable[..., PostgresStore]
) -> None:
    """Where the answer to a batch is lost nobody can say what became of it, and that is told."""
    store = opened()
    author, _ = begun(store)
    with pytest.raises(StoreUnavailableError) as caught, store.batch():
        author.write("b", "activate")
        proxy.lose_answer(to=COMMIT)
    assert caught.value.operation_id is not None
    assert store.tail("b")[0] == 2
    with pytest.raises(StoreUnavailableError) as caught, store.batch():
        author.write("c", "activate")
        proxy.cut_all()
        author.write("d", "activate")
    assert caught.value.operation_id is None
    assert store.tail("c") == store.tail("d") == (0, "")
    author.write("c", "activate")


def test_postgres_faults_a_silent_server_hangs_nobody(
    proxy: Proxy, opened: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says nothing is given up in time, for reads and for commits."""
    monkeypatch.setattr(postgres_connection, "SILENCE_SECONDS", 0.2)
    store = opened(statement_timeout_seconds=0.2, retry_seconds=0.1)
    _, commit = begun(store)
    began = monotonic()
    with proxy.frozen():
        with pytest.raises(StoreUnavailableError) as caught:
            store.load("a")
        assert caught.value.operation_id is None
    assert store.load("a") is not None
    with proxy.frozen(), pytest.raises(StoreUnavailableError) as caught:
        store.commit(commit)
    assert caught.value.operation_id == commit.operation_id
    commit = Author(store).draft("b", "activate", "touch")
    with proxy.frozen(), pytest.raises(StoreUnavailableError) as caught:
        store.commit(commit)
    assert caught.value.operation_id == commit.operation_id
    assert monotonic() - began < 60


def test_postgres_faults_one_silent_connection_holds_up_nobody_else(
    proxy: Proxy, opened: Callable[..., PostgresStore]
) -> None:
    """While one commit waits for an answer that never comes, the others go on."""
    store = opened(statement_timeout_seconds=60)
    author, commit = begun(store)
    others = [author.draft(name, "activate") for name in ("b", "c")]
    proxy.swallow_request(of=commit.operation_id.encode())
    with ThreadPoolExecutor(3) as pool:
        held = pool.submit(store.commit, commit)
        assert proxy.happened.wait(10)
        for each in [pool.submit(store.commit, other) for other in others]:
            each.result(30)
        assert not held.done()
        proxy.cut_all()
        held.result(30)
    assert_once(store, commit)


def test_postgres_faults_ended_connections_are_replaced(
    postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """Whoever ends the connections of a store is not noticed by its callers."""
    store = postgres_store
    author, commit = begun(store)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    postgres.execute(end)
    assert store.load("a") is not None
    postgres.execute(end)
    store.commit(commit)
    assert_once(store, commit)
    postgres.execute(end)
    store.set_mark("m", b"1")
    with store.batch():
        author.write("b", "activate")
    assert store.mark("m") == b"1"


def test_postgres_faults_a_statement_has_its_time(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """A commit that waits for somebody's lock too long fails, and has changed nothing."""
    with closing(PostgresStore(postgres_url, statement_timeout_seconds=0.2)) as store:
        author, commit = begun(store)
        alone = author.draft("b", "activate")
        with closing(postgres.connect()) as connection, connection.transaction():
            connection.execute(f"SELECT 1 FROM {store._sql.quoted}.session FOR UPDATE".encode())
            with pytest.raises(StoreUnavailableError) as caught:
                store.commit(commit)
            assert caught.value.operation_id is None
            assert "55P03" in str(caught.value)
            store.commit(alone)
        assert store.tail("a")[0] == commit.expected_revision
        store.commit(commit)
        assert_once(store, commit)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
def test_postgres_faults_transactions_that_collide_go_again(
    state: str, postgres: PostgresServer, postgres_store: PostgresStore
) -> None:
    """What the server undoes because of others is done again, and told to nobody."""
    store = postgres_store
    author, commit = begun(store)
    schema = store._sql.quoted
    postgres.execute(f"CREATE SEQUENCE {schema}.tries")
    postgres.execute(f"""
        CREATE FUNCTION {schema}.collide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('{schema}.tries') % 3 > 0 THEN
            RAISE EXCEPTION 'again' USING ERRCODE = '{state}';
        END IF;
        RETURN NULL; END $$""")
    for table in ("session_event", "mark"):
        postgres.execute(
            f"CREATE TRIGGER zzz AFTER INSERT ON {schema}.{table}"
            f" FOR EACH ROW EXECUTE FUNCTION {schema}.collide()"
        )
    store.commit(commit)
    store.set_mark("m", b"1")
    postgres.execute(f"DROP FUNCTION {schema}.collide CASCADE")
    assert_once(store, commit)
    assert store.mark("m") == b"1"
    with pytest.raises(RevisionConflictError):
        store.commit(commit)
    assert author.draft("a", "resume").expected_revision == commit.expected_revision + 1


def test_postgres_faults_a_server_may_restart() -> None:
    """Callers wait for a server that crashes and comes back; nothing that was told is lost."""
    server = PostgresServer(fsync="on")
    try:
        with closing(PostgresStore(server.url())) as store:
            author, commit = begun(store)
            server.stop("immediate")
            with ThreadPoolExecutor(2) as pool:
                read = pool.submit(store.tail, "a")
                made = pool.submit(store.commit, commit)
                server.start()
                assert read.result()[0] in (3, 4)
                made.result()
            assert_once(store, commit)
            server.stop("fast")
            server.start()
            author.write("a", "resume", releases=commit.claims)
            assert store.check() == ()
    finally:
        server.remove()


def test_postgres_faults_no_second_half_lands(postgres_store: PostgresStore) -> None:
    """Where the first step of a commit is refused none is made, though the next one would fit."""
    store = postgres_store
    author = author_of(store)
    author.write("a", "activate")
    composite = author.draft("a", "touch", "go_idle")
    author.write("a", "touch")
    assert composite.expected_revision + 1 == store.tail("a")[0]
    with pytest.raises(RevisionConflictError):
        store.commit(composite)
    assert store.tail("a")[0] == composite.expected_revision + 1
    assert store.check() == ()


@pytest.mark.parametrize("inside", [False, True])
def test_postgres_faults_leave_nothing_half_prepared(
    inside: bool, postgres_store: PostgresStore
) -> None:
    """What a pipeline was to prepare behind an error is known not to be prepared.

    That is so for whole transactions, and for parts of a batch.
    """
    again, wrong = b"SELECT 1 + %s::int", b"SELECT 1 / %s::int"
    store = postgres_store

    def fail(link: Connection) -> None:
        with link.pipeline():
            link.execute(wrong, [0])
            link.execute(again, [1])  # the second time: it would be prepared

    with store._connections.link() as link:
        for _ in range(2):  # a ROLLBACK with nothing prepared, and nothing to forget
            link.execute(b"BEGIN")
            link.execute(b"ROLLBACK")
        link.execute(again, [1])
    with store.batch() if inside else nullcontext():
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="22012"):
                store._connections.write(fail)
            rows = store._connections.read(lambda link: link.execute(again, [2]).fetchall())
            assert rows == [(3,)]
