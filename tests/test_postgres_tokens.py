"""What an owner that lives states of a session on a PostgreSQL server, and when no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest
from losing import lose_answer
from postgres_server import PostgresServer

from session_fsm import (
    FencedError,
    Put,
    SessionNotFoundError,
    StoreUnavailableError,
)
from session_fsm.items import ItemWrites
from session_fsm.stores import PostgresStore
from session_fsm.stores.postgres_tokens import Token, Tokens
from session_fsm.stores.records import Work
from session_fsm.testing.authors import Author

WORKER, START = Work("worker"), Work("start")
OpenAuthor = Callable[..., Author]


@pytest.fixture
def author_of(postgres_url: str) -> Iterator[OpenAuthor]:
    """Returns authors that live, each with a store of its own in one schema."""
    with ExitStack() as stack:

        def open_one(name: str, **more: Any) -> Author:
            store = stack.enter_context(closing(PostgresStore(postgres_url, **more)))
            store.enlist(name)
            return Author(store, name)

        yield open_one


def store_of(author: Author) -> PostgresStore:
    """Return the store of an author."""
    assert isinstance(author.store, PostgresStore)
    return author.store


def tokens(author: Author, *session_ids: str) -> list[int | None]:
    """Return the tokens that an author states of sessions."""
    found = [store_of(author)._tokens.of(author.name, each) for each in session_ids]
    return [None if token is None else token.number for token in found]


def refused_once(author: Author, session_id: str) -> None:
    """See that an author that lives is told that it has lost a session, and then may write."""
    late = author.draft(session_id, "touch")
    with pytest.raises(FencedError):
        author.store.commit(late)
    assert tokens(author, session_id) == [None]
    author.write(session_id, "touch")


def test_postgres_tokens_of_a_batch_that_is_undone_take_back_nothing_durable() -> None:
    """What another thread's commit told meanwhile, behind the batch, is kept."""
    in_batch = False
    kept = Tokens(lambda: in_batch)
    with pytest.raises(ZeroDivisionError), kept.batch():
        in_batch = True
        for session_id in "ab":
            kept.keep("one", session_id, Token(1))
        in_batch = False
        kept.keep("one", "b", Token(2))
        raise ZeroDivisionError
    assert [kept.of("one", session_id) for session_id in "ab"] == [None, Token(2)]


def test_postgres_tokens_of_a_batch_that_is_undone_bring_back_no_other(
    author_of: OpenAuthor,
) -> None:
    """A batch that is undone puts back what it changed, and nothing that others let go of."""
    one = author_of("one")
    for session_id in "abc":
        one.write(session_id, "activate", claims=[WORKER])
    with pytest.raises(ZeroDivisionError), one.store.batch():
        one.write("a", "touch", releases=[WORKER])
        one.write("d", "activate", claims=[WORKER])
        other = threading.Thread(target=one.store.release, args=("b", [WORKER], "one"))
        other.start()
        other.join()
        raise ZeroDivisionError
    assert tokens(one, *"abcd") == [1, None, 1, None]


@pytest.mark.parametrize("outcome", ["refused", "lost", "landed"])
def test_postgres_tokens_are_stated_after_a_batch_that_may_be_undone(
    author_of: OpenAuthor, outcome: str
) -> None:
    """Where nobody knows whether a batch was written, an owner states what it did before."""
    one, two = author_of("one"), author_of("two")
    one.write("a", "activate", claims=[WORKER])
    one.write("b", "activate")

    def refuse(_: Any) -> None:
        raise psycopg.errors.SerializationFailure("refused")

    if outcome == "refused":
        store_of(one)._connections._end = refuse  # type: ignore[assignment,method-assign]
    else:
        lose_answer(store_of(one), lands=outcome == "landed")
    with pytest.raises(StoreUnavailableError) as caught, one.store.batch():
        one.write("a", "touch", releases=[WORKER])
        one.write("b", "touch", claims=[WORKER])
    assert (caught.value.operation_id is None) == (outcome == "refused")
    assert tokens(one, "a") == [1]
    assert tokens(one, "b") == [None if outcome == "refused" else 1]
    if outcome == "lost":
        refused_once(one, "b")  # it never had it
    if outcome == "landed":
        two.write("a", "touch", claims=[WORKER])
        refused_once(one, "a")
        one.write("b", "touch")
        assert tokens(one, "b") == [1]


def test_postgres_tokens_of_work_that_was_let_go_of_unseen_are_given_up(
    author_of: OpenAuthor,
) -> None:
    """Whoever let go of a worker, and was not told, is refused once after others took it up."""
    one, two = author_of("one", retry_seconds=0), author_of("two")
    one.write("a", "activate", claims=[WORKER])
    lose_answer(store_of(one))
    with pytest.raises(StoreUnavailableError):
        one.store.release("a", [WORKER], "one")
    assert tokens(one, "a") == [1]
    two.write("a", "touch", claims=[WORKER])
    refused_once(one, "a")
    two.write("a", "touch")
    assert tokens(two, "a") == [2]


@pytest.mark.parametrize("hands", [2, 3])
def test_postgres_tokens_of_work_that_others_ended_are_given_up(
    author_of: OpenAuthor, hands: int
) -> None:
    """An owner whose worker others let go of writes as anybody does, whoever died later."""
    one, two, three = (author_of(name) for name in ("one", "two", "three"))
    one.write("a", "activate", claims=[WORKER])
    two.write("a", "touch", releases=[WORKER])
    two.write("a", "touch", claims=[WORKER])
    if hands == 3:
        two.store.dismiss("two")
        assert len(three.store.take_over("three", 9, restarting=True)) == 1
    with pytest.raises(FencedError):
        put(one, "a")
    assert tokens(one, "a") == [None]
    put(one, "a")
    one.write("a", "touch")


def put(author: Author, session_id: str) -> None:
    """Write an item, in the name of an author."""
    state, revision = author.store.load(session_id), 0
    assert state is not None
    writes = ItemWrites(state.state.updated_at, (Put("files", "k", 1),))
    revision = state.revision
    author.store.write_items(session_id, revision, writes, f"{author.name}{revision}", author.name)


def test_postgres_tokens_of_a_worker_that_was_taken_are_never_given_up(
    postgres: PostgresServer, author_of: OpenAuthor
) -> None:
    """An owner from whom a session was taken is refused again and again, should it live on."""
    one, two = author_of("one"), author_of("two")
    one.write("a", "activate", claims=[WORKER])
    owners = f"{store_of(one)._sql.quoted}.owner"
    move = f"UPDATE {owners} SET expires_at = now() + %s::interval WHERE owner_id = 'one'"
    postgres.execute(move, ["-1 minute"])
    assert len(two.store.take_over("two", 9, restarting=True)) == 1
    postgres.execute(move, ["10 minutes"])
    for _ in range(3):
        late = one.draft("a", "touch")
        with pytest.raises(FencedError):
            one.store.commit(late)
        with pytest.raises(FencedError):
            put(one, "a")
        assert one.store.take_over("one", 9, restarting=True) == ()
    assert tokens(one, "a") == [1]


def test_postgres_tokens_of_one_that_lapsed_hold_up_nobody(
    postgres: PostgresServer, author_of: OpenAuthor
) -> None:
    """Whoever came after an owner of the same process buries and compacts what that had."""
    one = author_of("one")
    one.write("a", "activate", *["touch"] * 5, claims=[WORKER])
    postgres.execute(
        f"UPDATE {store_of(one)._sql.quoted}.owner SET expires_at = now() - interval '1 second'"
    )
    assert store_of(one)._leases.renew()
    one.store.enlist("again")
    again = Author(one.store, "again")
    assert len(one.store.take_over("again", 9, restarting=True)) == 1
    again.write("a", "touch", releases=[WORKER])
    assert one.store.compact(again.shorter("a", keep=2)) > 0
    again.write("a", "terminate", "finish")
    again.bury("a")
    assert one.store.take_over("again", 9, restarting=True) == ()
    assert tokens(one, "a") == [None]


def test_postgres_tokens_of_a_commit_whose_answer_was_lost_are_stated(
    postgres: PostgresServer, author_of: OpenAuthor
) -> None:
    """Whoever learns that a commit has landed states the token that it gave."""
    one, two = author_of("one"), author_of("two")
    commit = one.draft("a", "activate", claims=[WORKER])
    noted = store_of(one)._writer._noted
    store_of(one)._writer._noted = lambda _: None
    one.store.commit(commit)
    store_of(one)._writer._noted = noted
    assert tokens(one, "a") == [None]
    assert not two.store.landed("a", "another")
    assert two.store.landed("a", commit.operation_id)
    assert store_of(two)._tokens.stated("a") == {}
    assert one.store.landed("a", commit.operation_id)
    assert tokens(one, "a") == [1]


def test_postgres_tokens_of_sessions_that_others_ended_are_let_go_of(
    author_of: OpenAuthor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of sessions that are gone, or that nobody owns, do not stay for ever."""
    one, two = author_of("one"), author_of("two")
    monkeypatch.setattr("session_fsm.stores.postgres_owning.TENDED_TOKENS", 2)
    for session_id in ("mine", "too", "gone", "freed", "other"):
        one.write(session_id, "activate", claims=[WORKER])
    two.write("gone", "terminate", "finish", releases=[WORKER])
    two.bury("gone")
    two.write("freed", "touch", releases=[WORKER])
    two.write("other", "touch", releases=[WORKER])
    two.write("other", "touch", claims=[START])
    with one.store.batch():
        one.write("batch", "activate", claims=[WORKER])
        for _ in range(9):
            store_of(one)._tend_tokens()
        assert tokens(one, "batch", "gone", "freed", "other") == [1, None, None, None]
    one.write("again", "activate", claims=[WORKER])
    for _ in range(3):
        assert one.store.take_over("one", 9, restarting=True) == ()
    assert tokens(one, "mine", "too", "batch", "again") == [1, 1, 1, 1]
    assert len(store_of(one)._tokens._of) == 4


def test_postgres_tokens_of_sessions_that_are_not_there_are_given_up(
    author_of: OpenAuthor,
) -> None:
    """A refusal because there is no session any longer ends what is stated of it."""
    one, two = author_of("one"), author_of("two")
    one.write("a", "activate", claims=[WORKER])
    late = one.draft("a", "touch")
    two.write("a", "terminate", "finish", releases=[WORKER])
    two.bury("a")
    with pytest.raises(SessionNotFoundError):
        one.store.commit(late)
    assert tokens(one, "a") == [None]


def test_postgres_tokens_outlast_what_makes_no_owner(author_of: OpenAuthor) -> None:
    """Whoever lets go of something, and owns the session all the same, states its token still."""
    one, two = author_of("one"), author_of("two")
    one.write("a", "activate", claims=[START, WORKER])
    one.store.release("a", [START], "one")
    assert tokens(one, "a") == [1]
    two.write("a", ("begin_task", {"task_id": "t"}), claims=[Work("task", "t")])
    two.store.dismiss("two")
    [taken] = one.store.take_over("one", 9, restarting=True)
    one.store.give_back(taken)
    assert tokens(one, "a") == [1]
    one.store.release("a", [WORKER], "one")
    assert tokens(one, "a") == [None]


def test_postgres_tokens_that_are_newer_than_what_was_read_stay(author_of: OpenAuthor) -> None:
    """A token that was found to be old is let go of only if there is none newer by now."""
    kept = store_of(author_of("one"))._tokens
    kept.keep("one", "a", Token(2))
    kept.drop("one", "a", Token(1))
    assert kept.of("one", "a") == Token(2)
    kept.drop("one", "a", Token(2))
    assert kept.of("one", "a") is None
