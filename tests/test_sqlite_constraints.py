"""What the database itself enforces, attacked by plain SQL from a connection of somebody else's."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from session_fsm import SESSION_LIFECYCLE, Lifecycle, Row, SessionStatus
from session_fsm.stores import SqliteStore
from session_fsm.stores.sqlite_schema import statements
from session_fsm.testing.authors import Author, routes

WORDS = [str(status) for status in SessionStatus]
EDGES = {(str(source), str(target)) for source, target in SESSION_LIFECYCLE.edges}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with one session in each status, named like it."""
    with closing(SqliteStore(tmp_path / "sessions.db")) as store:
        author = Author(store)
        for status, triggers in routes(SESSION_LIFECYCLE).items():
            author.write(status, *triggers)
        yield store


@pytest.fixture
def sql(store: SqliteStore) -> Iterator[sqlite3.Connection]:
    """A connection to the same file that knows nothing of the store; commits at once."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        yield connection


def rows(sql: sqlite3.Connection) -> list[list[tuple[Any, ...]]]:
    """All rows that rules protect."""
    queries = ("SELECT rowid, * FROM session", "SELECT * FROM session_event")
    return [sql.execute(query).fetchall() for query in (*queries, "SELECT * FROM session_count")]


def refused(sql: sqlite3.Connection, statement: str, why: str = "session_fsm: ") -> None:
    """Expect the database to refuse a statement, and to stay as it is."""
    before = rows(sql)
    with pytest.raises(sqlite3.IntegrityError, match=why):
        sql.execute(statement)
    assert rows(sql) == before
    assert sql.in_transaction is False


# --- moves ---------------------------------------------------------------------------------------


def test_sqlite_constraints_are_those_of_the_graph() -> None:
    """The status graph that is enforced has the seven edges of the design."""
    assert {
        ("initializing", "active"),
        ("initializing", "terminated"),
        ("active", "idle"),
        ("idle", "active"),
        ("active", "terminating"),
        ("idle", "terminating"),
        ("terminating", "terminated"),
    } == EDGES


@pytest.mark.parametrize(("source", "target"), list(product(WORDS, [*WORDS, "asleep", ""])))
def test_sqlite_constraints_accept_the_edges_alone(
    sql: sqlite3.Connection, source: str, target: str
) -> None:
    """Of all ordered pairs of statuses the database lets exactly the edges pass.

    Writing a status over itself is no move: it is refused where the status is final only.
    """
    statement = (
        f"UPDATE session SET status = '{target}', revision = revision + 1"
        f" WHERE session_id = '{source}'"
    )
    stays = source == target and source != "terminated"
    if (source, target) in EDGES or stays:
        assert sql.execute(statement).rowcount == 1
        query = "SELECT status FROM session WHERE session_id = ?"
        assert sql.execute(query, (source,)).fetchone() == (target,)
    else:
        why = "a final status is final|no row of the table has this move"
        refused(sql, statement, why)


@pytest.mark.parametrize("kind", ["OR REPLACE ", "OR IGNORE ", "OR FAIL ", "OR ROLLBACK ", ""])
def test_sqlite_constraints_hold_for_every_kind_of_update(
    sql: sqlite3.Connection, kind: str
) -> None:
    """No way to write an update gets round the rules."""
    for change in (
        "status = 'terminated', revision = revision + 1 WHERE session_id = 'active'",
        "revision = revision + 1 WHERE session_id = 'terminated'",
        "state = '{}' WHERE session_id = 'active'",
        "session_id = 'idle', revision = revision + 1 WHERE session_id = 'active'",
    ):
        refused(sql, f"UPDATE {kind}session SET {change}")


def test_sqlite_constraints_refuse_a_mass_update(sql: sqlite3.Connection) -> None:
    """A statement that is legal for some rows and not for all changes none."""
    refused(sql, "UPDATE session SET revision = revision + 1")
    refused(sql, "UPDATE session SET status = 'active', revision = revision + 1")


def test_sqlite_constraints_keep_a_lifecycle_to_its_own_moves(
    store: SqliteStore, sql: sqlite3.Connection
) -> None:
    """A move that is legal in one lifecycle is not so in another one with the same words."""
    rows = [
        Row("leap", "active", "terminated", ending=True),
        Row("doze", "active", "idle"),
        Row("stop", "idle", "terminated", ending=True),
    ]
    leaping = Lifecycle(("active", "idle", "terminated"), "active", rows, name="leaping")
    with closing(SqliteStore(store.path, leaping)) as other:
        Author(other, "frog's").write("frog")
        refused(sql, "UPDATE session SET status = 'terminated', revision = 3"
                " WHERE session_id = 'active'", "no row of the table")  # fmt: skip
        frog = "UPDATE session SET status = '{}', revision = 2 WHERE session_id = 'frog'"
        with pytest.raises(sqlite3.IntegrityError, match="no row of the table has this move"):
            sql.execute(frog.format("terminating"))
        sql.execute(frog.format("terminated"))
        with pytest.raises(sqlite3.IntegrityError, match="begins in the initial status"):
            sql.execute(
                "INSERT INTO session VALUES ('toad', 'leaping', 1, 'idle', NULL, NULL, '', '')"
            )


# --- what a session keeps ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("session_id = 'other', revision = revision + 1", "id and lifecycle never change"),
        ("lifecycle = 'other', revision = revision + 1", "id and lifecycle never change"),
        ("rowid = 99, revision = revision + 1", "id and lifecycle never change"),
        ("rowid = 1, revision = revision + 1", "id and lifecycle never change"),
        ("revision = revision", "each step raises the revision by one"),
        ("revision = revision - 1", "each step raises the revision by one"),
        ("revision = revision + 2", "each step raises the revision by one"),
        ("revision = 0", "each step raises the revision by one"),
        ("state = '{}'", "each step raises the revision by one"),
        ("deadline_at = NULL", "each step raises the revision by one"),
        ("status = 'idle'", "each step raises the revision by one"),
        ("revision = NULL", "each step raises the revision by one"),
        ("status = NULL, revision = revision + 1", "no row of the table has this move"),
        ("state = NULL, revision = revision + 1", "NOT NULL constraint failed"),
        ("state = x'00', revision = revision + 1", "cannot store BLOB value in TEXT column"),
        ("revision = 'x'", "each step raises|cannot store TEXT"),
    ],
)
@pytest.mark.parametrize("conflict", ["", "OR REPLACE "])
def test_sqlite_constraints_keep_a_session_itself(
    sql: sqlite3.Connection, change: str, why: str, conflict: str
) -> None:
    """Id and lifecycle stay, each change is one step further, and types are what they are."""
    statement = f"UPDATE {conflict}session SET {change} WHERE session_id = 'active'"
    refused(sql, statement, why)


def test_sqlite_constraints_keep_what_is_final(sql: sqlite3.Connection) -> None:
    """Nothing of an ended session changes, whatever is tried."""
    for change in (
        "revision = revision + 1",
        "state = '{}', revision = revision + 1",
        "state = ''",
    ):
        statement = f"UPDATE session SET {change} WHERE session_id = 'terminated'"
        refused(sql, statement, "a final status is final|raises the revision by one")


# --- beginnings ----------------------------------------------------------------------------------

INSERT = "INSERT {}INTO session VALUES ('{}', '{}', 1, '{}', NULL, NULL, '{{}}', '')"


@pytest.mark.parametrize("status", [*WORDS, "asleep", ""])
@pytest.mark.parametrize("kind", ["", "OR REPLACE ", "OR IGNORE "])
def test_sqlite_constraints_let_sessions_begin_at_the_beginning(
    sql: sqlite3.Connection, status: str, kind: str
) -> None:
    """A session begins in the initial status of a lifecycle that the file knows."""
    statement = INSERT.format(kind, "new", "session", status)
    if status == SESSION_LIFECYCLE.initial:
        sql.execute(statement)
    else:
        refused(sql, statement, "a session begins in the initial status")
    refused(
        sql,
        INSERT.format(kind, "newer", "unknown", status),
        "a session begins in the initial status",
    )


@pytest.mark.parametrize("existing", WORDS)
@pytest.mark.parametrize("kind", ["", "OR REPLACE ", "OR IGNORE ", "OR FAIL "])
def test_sqlite_constraints_let_nothing_take_the_place_of_a_session(
    sql: sqlite3.Connection, existing: str, kind: str
) -> None:
    """No insert over an id that is there, or over its row, removes or changes the session."""
    refused(sql, INSERT.format(kind, existing, "session", "initializing"), "the session exi")
    row = (
        f"INSERT {kind}INTO session (rowid, session_id, lifecycle, revision, status, state,"
        " digest) SELECT rowid, 'new', 'session', 1, 'initializing', '{}', ''"
        f" FROM session WHERE session_id = '{existing}'"
    )
    refused(sql, row, "the session exists")
    upsert = (
        INSERT.format("", existing, "session", "initializing")
        + " ON CONFLICT DO UPDATE SET status = 'active', revision = revision + 1"
    )
    refused(sql, upsert, "the session exists")


# --- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", WORDS)
def test_sqlite_constraints_let_only_what_has_ended_go(
    store: SqliteStore, sql: sqlite3.Connection, status: str
) -> None:
    """A session that lives can't be deleted; one that has ended can, and its events after it."""
    delete = f"DELETE FROM session WHERE session_id = '{status}'"
    events = f"DELETE FROM session_event WHERE session_id = '{status}'"
    refused(sql, events, "the events of a session stay with it")
    if status in map(str, SESSION_LIFECYCLE.final):
        assert sql.execute(delete).rowcount == 1
        refused(sql, events, "the newest event stays")
        Author(store).write("newer")
        assert sql.execute(events).rowcount == 2
        assert store.check() == ()
    else:
        refused(sql, delete, "only what has ended may be removed")
        refused(sql, "DELETE FROM session", "only what has ended may be removed")


# --- events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    ["body = x''", "digest = 'x'", "revision = 9", "session_id = 'x'", "at = ''", "seq = 99",
     "seq = 1", "operation_id = ''", "body = body"],
)  # fmt: skip
@pytest.mark.parametrize("conflict", ["", "OR REPLACE ", "OR IGNORE "])
def test_sqlite_constraints_let_no_event_change(
    sql: sqlite3.Connection, change: str, conflict: str
) -> None:
    """An event is written once, whatever of it is to be changed."""
    for which in ("active", "terminated"):
        statement = f"UPDATE {conflict}session_event SET {change} WHERE session_id = '{which}'"
        refused(sql, statement, "an event never changes")


@pytest.mark.parametrize("conflict", ["", "OR REPLACE ", "OR IGNORE ", "OR FAIL "])
def test_sqlite_constraints_let_nothing_take_the_place_of_an_event(
    sql: sqlite3.Connection, conflict: str
) -> None:
    """No insert over an event's revision, or over its number, removes or changes it."""
    columns = "session_id, revision, at, body, digest, operation_id"
    forms = (
        f"({columns}) VALUES ('active', 1, '', x'', '', '')",
        "VALUES (99, 'active', 2, '', x'', '', '')",
        "VALUES (1, 'active', 99, '', x'', '', '')",
        "VALUES (2, 'new', 1, '', x'', '', '')",
    )
    for form in forms:
        statement = f"INSERT {conflict}INTO session_event {form}"
        refused(sql, statement, "the event exists")


def test_sqlite_constraints_hold_with_recursive_triggers(sql: sqlite3.Connection) -> None:
    """The rules don't rest on a setting of the connection that writes."""
    for setting in (
        "recursive_triggers = ON",
        "foreign_keys = OFF",
        "ignore_check_constraints = 1",
    ):
        sql.execute(f"PRAGMA {setting}")
        refused(sql, INSERT.format("OR REPLACE ", "active", "session", "initializing"))
        refused(sql, "INSERT OR REPLACE INTO session_event VALUES (1, 'x', 1, '', x'', '', '')")
        refused(sql, "DELETE FROM session_event")
        refused(sql, "DELETE FROM session")


# --- counts --------------------------------------------------------------------------------------


def test_sqlite_constraints_count_for_everybody(
    store: SqliteStore, sql: sqlite3.Connection
) -> None:
    """Counts follow whoever writes, also where the store has no part in it."""
    sql.execute(INSERT.format("", "new", "session", "initializing"))
    assert store.counts()["initializing"] == 2
    move = "UPDATE session SET status = 'active', revision = 2 WHERE session_id = 'new'"
    sql.execute(move)
    assert (store.counts()["initializing"], store.counts()["active"]) == (1, 2)
    sql.execute("DELETE FROM session WHERE session_id = 'terminated'")
    assert "terminated" not in store.counts()
    with pytest.raises(sqlite3.IntegrityError):
        sql.execute(move)
    sql.execute("BEGIN")
    sql.execute(INSERT.format("", "newer", "session", "initializing"))
    sql.execute("ROLLBACK")
    assert store.check() == ()


# --- the text of the schema ----------------------------------------------------------------------


def test_sqlite_constraints_know_no_status(sql: sqlite3.Connection) -> None:
    """No word of a lifecycle stands in the schema: what is legal is rows of a table."""
    text = "\n".join(row[0] for row in sql.execute("SELECT sql FROM sqlite_schema WHERE sql <> ''"))
    assert "CREATE TRIGGER" in text
    words = set(re.findall(r"\w+", text.lower()))
    assert words.isdisjoint(WORDS)


def test_sqlite_constraints_are_filled_from_the_lifecycle(sql: sqlite3.Connection) -> None:
    """The tables of rules hold the lifecycle's statuses and edges, and nothing else."""
    moves = sql.execute("SELECT lifecycle, source, target FROM legal_move").fetchall()
    assert set(moves) == {("session", *edge) for edge in EDGES}
    statuses = sql.execute("SELECT status, is_initial, is_final FROM lifecycle_status").fetchall()
    assert sorted(statuses) == sorted(
        (word, int(word == "initializing"), int(word == "terminated")) for word in WORDS
    )
    [known] = sql.execute("SELECT name, fingerprint FROM lifecycle").fetchall()
    assert known == ("session", SESSION_LIFECYCLE.fingerprint)


def test_sqlite_constraints_scripts_are_split_whole() -> None:
    """A script is split at the ends of its statements, those inside of a trigger left together."""
    trigger = "CREATE TRIGGER t AFTER INSERT ON a\nBEGIN\n  SELECT 1;\n  SELECT ';';\nEND;"
    script = f"\nCREATE TABLE a (b);\n\n{trigger}\nSELECT 1;\n"
    assert statements(script) == ["CREATE TABLE a (b);", trigger, "SELECT 1;"]
    assert statements("") == []
