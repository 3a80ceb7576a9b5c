"""Many moves in one statement: each as if it had been alone, and none at the cost of another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import psycopg
import pytest
from managing import begin, end, wait_until
from postgres_server import PostgresServer
from psycopg_pool import ConnectionPool

from session_fsm import FencedError, RevisionConflictError, SessionFsmError, SessionNotFoundError
from session_fsm.errors import StateInvalidError
from session_fsm.history import Step
from session_fsm.stores import PostgresStore, postgres_group, postgres_writer
from session_fsm.stores.commit_queue import Request
from session_fsm.stores.postgres_arrays import asked_with, instant, integer, packed
from session_fsm.stores.postgres_commit import PreparedCommit
from session_fsm.stores.postgres_group import move_together
from session_fsm.stores.postgres_sql import Sql
from session_fsm.stores.postgres_tokens import Token
from session_fsm.stores.records import Commit, StoredStep, Work
from session_fsm.testing.authors import Author, Move, everything

NAMES = tuple(f"s{number}" for number in range(5))


@pytest.fixture
def author(postgres_store: PostgresStore) -> Author:
    """One who lives, with a session in progress for each of `NAMES`."""
    author = Author(postgres_store)
    for name in NAMES:
        author.write(name, "activate")
    return author


def prepared(store: PostgresStore, commit: Commit, token: Token | None = None) -> PreparedCommit:
    """Return a commit as it is sent."""
    return PreparedCommit(commit, store.lifecycle, store._connections.sql, token=token)


def sent(store: PostgresStore, *changes: PreparedCommit) -> list[bool]:
    """Send moves in one statement; tells which were made."""
    with store._connections.link() as link:
        return [row is not None for row in move_together(link, changes)]


def written(store: PostgresStore, *commits: Commit) -> list[str]:
    """Have commits made as one group; returns what came of each."""
    requests = [Request(prepared(store, commit)) for commit in commits]
    store._writer._write(requests)
    return [told(request) for request in requests]


def told(request: Request[PreparedCommit]) -> str:
    """Return what an request was answered."""
    assert not request.pending
    return "made" if request.error is None else type(request.error).__name__


def test_postgres_group_writes_what_single_statements_write(
    postgres: PostgresServer, author: Author
) -> None:
    """What is stored is the same to the byte, whether moves went alone or in one statement."""
    moves: dict[str, Move] = {
        "s0": ("go_idle", {}),
        "s1": ("touch", {}),
        "s2": ("terminate", {"error": "it broke: ü 🙂"}),
        "s3": ("update", {"metadata": {"k": [1, None, "x" * 3000]}}),
        "s4": ("expire", {"reason": "done"}),
    }
    late = {"s4": datetime(2030, 1, 1, tzinfo=UTC)}
    with postgres.opened_store() as other:
        alone = Author(other)
        for name in NAMES:
            alone.write(name, "activate")
        for name, move in moves.items():
            alone.write(name, move, at=late.get(name))
        store = author.store
        assert isinstance(store, PostgresStore)
        commits = [author.draft(name, move, at=late.get(name)) for name, move in moves.items()]
        assert all(sent(store, *(prepared(store, commit) for commit in commits)))
        assert everything(store, "author") == everything(other, "author")
        assert store.check() == ()


def test_postgres_group_leaves_out_what_does_not_hold(author: Author) -> None:
    """Each condition of a move leaves out that move, and no other."""
    store = author.store
    assert isinstance(store, PostgresStore)
    good, late, stale, dead, unknown = (author.draft(name, "touch") for name in NAMES)
    author.write("s1", "touch")
    changes = [
        prepared(store, good),
        prepared(store, late),
        prepared(store, stale, Token(7)),
        prepared(store, attrs.evolve(dead, owner_id="nobody")),
        prepared(store, attrs.evolve(unknown, session_id="none")),
    ]
    assert sent(store, *changes) == [True, False, False, False, False]
    assert [store.tail(name)[0] for name in NAMES] == [3, 3, 2, 2, 2]
    with store._connections.link() as link:
        reasons = [type(change.reason(link)) for change in changes[1:]]
    assert reasons == [RevisionConflictError, FencedError, FencedError, SessionNotFoundError]


def test_postgres_group_states_the_token(author: Author) -> None:
    """Who owns a session moves it with its token, and learns which it has afterwards."""
    store = author.store
    assert isinstance(store, PostgresStore)
    author.write("s0", "touch", claims=[Work("worker")])
    token = store._tokens.of("author", "s0")
    assert token is not None
    owned = prepared(store, author.draft("s0", "touch"), token)
    assert owned.only_moves
    with store._connections.link() as link:
        [row] = move_together(link, [owned])
    assert row is not None
    owned.note(row)
    assert owned.token == token


def test_postgres_group_answers_each(author: Author) -> None:
    """In a group of all kinds of commits each has its own answer."""
    store = author.store
    assert isinstance(store, PostgresStore)
    late = author.draft("s1", "touch")
    author.write("s1", "touch")
    commits = (
        author.draft("s0", "go_idle"),
        late,
        author.draft("new", "activate"),
        author.draft("s2", "touch", "go_idle"),
        author.draft("s3", "touch", claims=[Work("task", "t")]),
        attrs.evolve(author.draft("s4", "touch"), owner_id="nobody"),
    )
    assert written(store, *commits) == [
        "made", "RevisionConflictError", "made", "made", "made", "FencedError",
    ]  # fmt: skip
    assert [store.tail(name)[0] for name in (*NAMES, "new")] == [3, 3, 4, 3, 2, 2]
    assert store.check() == ()


def test_postgres_group_of_one_session_makes_one_move(author: Author) -> None:
    """Of two moves of one session from one revision one is made, and the other is told."""
    store = author.store
    assert isinstance(store, PostgresStore)
    twice = [author.draft("s0", "touch"), author.draft("s0", "go_idle")]
    assert sorted(written(store, *twice, author.draft("s1", "touch"))) == [
        "RevisionConflictError", "made", "made",
    ]  # fmt: skip
    assert [store.tail(name)[0] for name in NAMES[:2]] == [3, 3]
    assert store.check() == ()


def unsayable(commit: Commit, **what: Any) -> Commit:
    """Return a commit of a step that was never decided."""
    [step] = commit.steps
    other = Step(
        before=step.step.before,
        after=attrs.evolve(step.state, **what.pop("after", {})),
        trigger=step.step.trigger,
        moves=step.step.moves,
        **what,
    )
    return attrs.evolve(
        commit, steps=(StoredStep(other, step.revision, "0" * 64, step.deadline_at),)
    )


def test_postgres_group_has_no_part_in_what_one_can_not_write(author: Author) -> None:
    """A state or a text that can't be written, or a move that the rules refuse, harms no other."""
    store = author.store
    assert isinstance(store, PostgresStore)
    nowhere = unsayable(author.draft("s1", "touch"), after={"status": "nowhere"})
    surrogate = attrs.evolve(author.draft("s2", "touch"), operation_id="\udc80")
    illegal = unsayable(author.draft("s3", "go_idle"), after={"status": "initializing"})
    rest = [author.draft(name, "touch") for name in ("s0", "s4")]
    outcome = written(store, rest[0], nowhere, surrogate, rest[1])
    assert outcome == ["made", StateInvalidError.__name__, "_AloneError", "made"]
    rest = [author.draft(name, "touch") for name in ("s0", "s4")]
    assert written(store, rest[0], illegal, rest[1]) == ["_AloneError"] * 3
    assert [store.tail(name)[0] for name in NAMES] == [3, 2, 2, 2, 3]


@contextmanager
def locked(postgres: PostgresServer, store: PostgresStore) -> Iterator[psycopg.Connection[Any]]:
    """Have the session `s2` locked by somebody else inside, or until that one commits."""
    with postgres.connect() as other:
        other.autocommit = False
        hold = f"SELECT 1 FROM {store._connections.sql.quoted}.session WHERE session_id = 's2'"
        other.execute(f"{hold} FOR UPDATE".encode())
        yield other


WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def outcome(store: PostgresStore, commit: Commit) -> str:
    """Make a commit; returns what came of it."""
    try:
        store.commit(commit)
    except SessionFsmError as fault:
        return type(fault).__name__
    return "made"


PROMPT_SECONDS = 10
"""Longer than anything takes that waits for nobody; a statement may wait for thrice as long."""


def promptly(store: PostgresStore, commit: Commit) -> None:
    """Make a commit, which may not take long."""
    begin(store.commit, commit).result(PROMPT_SECONDS)


def commit_together(store: PostgresStore, commits: Sequence[Commit]) -> list[str]:
    """Commit from threads, all of which come while somebody else writes; returns the outcomes."""
    with store._writer.alone():
        threads = [begin(outcome, store, commit) for commit in commits]
        wait_until(lambda: len(store._writer._queue._waiting) == len(commits))
    return [str(thread.result(60)) for thread in threads]


def test_postgres_group_that_is_refused_is_made_one_by_one(
    author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the rules refuse one, all of its group are made again alone, and that one is refused."""
    store = author.store
    assert isinstance(store, PostgresStore)
    groups: list[int] = []

    def move(link: Any, changes: Sequence[PreparedCommit]) -> Any:
        groups.append(len(changes))
        return move_together(link, changes)

    monkeypatch.setattr(postgres_writer, "move_together", move)
    illegal = unsayable(author.draft("s2", "go_idle"), after={"status": "initializing"})
    commits = [illegal, *(author.draft(name, "touch") for name in ("s0", "s1", "s3", "s4"))]
    assert commit_together(store, commits) == ["StoreUnavailableError", *["made"] * 4]
    assert groups == [5]
    assert [store.tail(name)[0] for name in NAMES] == [3, 3, 2, 3, 3]


def test_postgres_group_waits_for_who_moves_a_session(
    postgres: PostgresServer, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move that waited for somebody else's sees what that has done; the others are made."""
    monkeypatch.setattr(postgres_group, "BRIEF", "30000")
    store = author.store
    assert isinstance(store, PostgresStore)
    changes = [prepared(store, author.draft(name, "touch")) for name in NAMES]
    quoted = store._connections.sql.quoted
    done: list[list[bool]] = []
    with postgres.connect() as other:
        other.autocommit = False
        other.execute(
            f"UPDATE {quoted}.session SET revision = revision + 1 WHERE session_id = 's2'".encode()
        )
        thread = threading.Thread(target=lambda: done.append(sent(store, *changes)))
        thread.start()
        wait_until(lambda: postgres.execute(WAITS) != [(0,)])
        other.commit()
        thread.join(30)
    assert done == [[True, True, False, True, True]]


def test_postgres_group_does_not_wait_for_a_transaction_that_lasts(
    postgres: PostgresServer, author: Author
) -> None:
    """While somebody has a session locked, the others of its group are moved, and later ones."""
    store = author.store
    assert isinstance(store, PostgresStore)
    commits = {name: author.draft(name, "touch") for name in NAMES}
    with locked(postgres, store) as other:
        with store._writer.alone():
            threads = {name: begin(store.commit, commit) for name, commit in commits.items()}
            wait_until(lambda: len(store._writer._queue._waiting) == len(NAMES))
        held = threads.pop("s2")
        for thread in threads.values():
            thread.result(PROMPT_SECONDS)
        promptly(store, author.draft("s0", "touch"))
        assert not held.done()
        other.commit()
    end(held)
    assert [store.tail(name)[0] for name in NAMES] == [4, 3, 3, 3, 3]
    setting = store._connections.read(
        lambda link: link.execute("SHOW lock_timeout").fetchall()  # of whichever connection
    )
    assert setting == [("0",)]


KINDS: dict[str, Callable[[Author], Commit]] = {
    "a move": lambda author: author.draft("s2", "touch"),
    "several moves": lambda author: author.draft("s2", "touch", "go_idle"),
    "a claim": lambda author: author.draft("s2", "touch", claims=[Work("task", "t")]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_postgres_commit_that_leads_alone_holds_nobody_up(
    postgres: PostgresServer, author: Author, kind: str
) -> None:
    """Whoever finds nobody writing, and then a locked session, does not keep others waiting."""
    store = author.store
    assert isinstance(store, PostgresStore)
    commit, other_commit = KINDS[kind](author), author.draft("s0", "touch")
    with locked(postgres, store) as other:
        held = begin(store.commit, commit)
        wait_until(lambda: postgres.execute(WAITS) != [(0,)])
        promptly(store, other_commit)
        assert not held.done()
        other.commit()
    end(held)
    assert store.tail("s2")[0] == 2 + len(commit.steps)


def test_postgres_creation_that_leads_alone_holds_nobody_up(
    postgres: PostgresServer, author: Author
) -> None:
    """Nor does whoever creates a session while somebody else is creating it."""
    store = author.store
    assert isinstance(store, PostgresStore)
    quoted = store._connections.sql.quoted
    commit, other_commit = author.draft("new", "activate"), author.draft("s0", "touch")
    columns = "lifecycle, revision, status, state, digest, recovery"
    with postgres.connect() as other:
        other.autocommit = False
        other.execute(
            f"INSERT INTO {quoted}.session (session_id, {columns})"
            f" SELECT 'new', lifecycle, 1, 'initializing', state, digest, recovery"
            f" FROM {quoted}.session WHERE session_id = 's1'".encode()
        )
        held = begin(store.commit, commit)
        wait_until(lambda: postgres.execute(WAITS) != [(0,)])
        promptly(store, other_commit)
        assert not held.done()
        other.rollback()
    end(held)
    assert store.tail("new")[0] == 2


def test_postgres_commits_that_wait_leave_connections_to_others(
    postgres: PostgresServer, author: Author
) -> None:
    """However many wait for a locked session, there is a connection for whoever reads."""
    store = author.store
    assert isinstance(store, PostgresStore)
    number = store._connections.source._limit + 4  # type: ignore[attr-defined]
    drafts = [author.draft("s2", "touch") for _ in range(number)]
    with locked(postgres, store) as other:
        held = [begin(outcome, store, draft) for draft in drafts]
        wait_until(lambda: postgres.execute(WAITS) != [(0,)])
        for _ in range(20):
            assert begin(store.load, "s0").result(PROMPT_SECONDS) is not None
        assert not any(each.done() for each in held)
        other.commit()
    assert sorted(each.result(60) for each in held) == [
        *["RevisionConflictError"] * (number - 1), "made",
    ]  # fmt: skip


def test_postgres_commit_waits_for_a_lock_as_long_as_a_statement_may(
    postgres: PostgresServer, postgres_url: str, author: Author
) -> None:
    """Even where nothing else is tried again, it is asked for again and again until it is had."""
    with (
        closing(PostgresStore(postgres_url, retry_seconds=0)) as store,
        locked(postgres, store) as other,
    ):
        held = begin(store.commit, Author(store, "mine").draft("s2", "touch"))
        for _ in range(3):
            wait_until(lambda: postgres.execute(WAITS) != [(0,)])
            wait_until(lambda: postgres.execute(WAITS) == [(0,)])
        assert not held.done()
        other.commit()
        end(held)
        assert store.tail("s2")[0] == 3


def test_postgres_group_answers_those_that_were_made_whatever_comes_after(
    author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it can't be told why one was not made, the others were made all the same."""
    store = author.store
    assert isinstance(store, PostgresStore)
    late = author.draft("s0", "touch")
    author.write("s0", "touch")

    def reason(self: PreparedCommit, link: Any) -> None:
        link.execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)")

    monkeypatch.setattr(PreparedCommit, "reason", reason)
    drafts = (late, *(author.draft(name, "touch") for name in NAMES[1:]))
    assert written(store, *drafts) == ["_AloneError", *["made"] * 4]


def test_postgres_group_speaks_the_encoding_of_a_pool(
    postgres: PostgresServer, postgres_url: str, author: Author
) -> None:
    """Connections of somebody's pool that talk in another encoding move the same sessions."""
    for name in ("é", "Ã©"):
        author.write(name, "activate")
    schema = Sql(postgres_url.rpartition("=")[2]).schema
    options = {"client_encoding": "LATIN1"}
    with (
        ConnectionPool(postgres.url(), max_size=8, kwargs=options) as pool,
        closing(PostgresStore(pool=pool, schema=schema)) as store,
    ):
        mine = Author(store, "mine")
        assert written(store, mine.draft("é", "touch"), mine.draft("s0", "touch")) == ["made"] * 2
        assert [store.tail(name)[0] for name in ("é", "Ã©", "s0")] == [3, 2, 3]
        assert store.check() == ()


def test_postgres_group_has_its_bounds(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many moves are sent at once as their bytes allow, and one that has more goes alone."""
    store = author.store
    assert isinstance(store, PostgresStore)
    drafts = [author.draft(name, "touch") for name in NAMES]
    sizes = [prepared(store, draft) for draft in drafts]
    for each in sizes:
        each.encode()
    size = max(each.size for each in sizes)
    groups: list[int] = []
    order: list[str] = []

    def move(link: Any, changes: Sequence[PreparedCommit]) -> Any:
        groups.append(len(changes))
        order.extend(change.commit.session_id for change in changes)
        return move_together(link, changes)

    monkeypatch.setattr(postgres_writer, "move_together", move)
    monkeypatch.setattr(postgres_writer, "MAX_BYTES", 2 * size)
    assert written(store, *reversed(drafts)) == ["made"] * 5
    assert groups == [2, 2, 1]
    assert order == list(NAMES)  # so that two groups of one fleet wait in one order
    monkeypatch.setattr(postgres_writer, "MAX_BYTES", 1)
    assert written(store, *(author.draft(name, "touch") for name in NAMES[:3])) == ["made"] * 3
    assert groups[3:] == [1, 1, 1]


ARRAYS: dict[str, list[Any]] = {
    "text": ["", "a", None, "ü🙂", '{"\\,}', "NULL"],
    "bytea": [b"", b"\0\xff", None, b"x" * 5000],
    "int8": [0, -1, None, 2**63 - 1, -(2**63)],
    "timestamptz": [
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        None,
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ],
}


def encoded(value: Any) -> bytes | None:
    """Return a value as it is put into an array."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return integer(value) if isinstance(value, int) else instant(value)


@pytest.mark.parametrize("kind", ARRAYS)
def test_postgres_arrays_are_what_psycopg_sends(postgres: PostgresServer, kind: str) -> None:
    """The server reads the same from an array as from a list of psycopg's, NULL and all."""
    values = ARRAYS[kind]
    with postgres.connect() as link:
        query = f"SELECT %s::{kind}[]".encode()
        for some in (values, [each for each in values if each is not None], []):
            [(found,)] = asked_with(link, query, [packed(kind, [encoded(each) for each in some])])
            assert found == some
            same = f"SELECT %s::{kind}[] IS NOT DISTINCT FROM %s::{kind}[]".encode()
            cursor: psycopg.Cursor[Any] = link.cursor(binary=True)
            assert cursor.execute(same, (found, some)).fetchone() == (True,)
