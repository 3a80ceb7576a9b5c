"""What a PostgreSQL database itself enforces, attacked by plain SQL of somebody who owns it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from typing import Any

import psycopg
import pytest
from postgres_server import PostgresServer

from session_fsm import SESSION_LIFECYCLE, Lifecycle, Row, SessionStatus
from session_fsm.items import Put
from session_fsm.stores import PostgresStore
from session_fsm.stores.postgres_ddl import TABLES
from session_fsm.stores.postgres_rules import KEPT, rules
from session_fsm.testing.authors import Author, routes

WORDS = [str(status) for status in SessionStatus]
EDGES = {(str(source), str(target)) for source, target in SESSION_LIFECYCLE.edges}
Execute = Callable[..., psycopg.Cursor[Any]]


@pytest.fixture
def store(postgres_store: PostgresStore) -> PostgresStore:
    """A store with one session in each status, named like it; nothing is tended by the way."""
    postgres_store._tending.close()
    author = author_of(postgres_store)
    for status, triggers in routes(SESSION_LIFECYCLE).items():
        author.write(status, *triggers)
    author.put("active", Put("files", "k", 1))
    assert postgres_store.feed(0, 100).removed == 0
    return postgres_store


def author_of(store: PostgresStore) -> Author:
    """Return an author that lives."""
    store.enlist("author")
    return Author(store)


@pytest.fixture
def sql(store: PostgresStore, postgres: PostgresServer) -> Iterator[Execute]:
    """Executes as the superuser, with the schema in the place of {s}; commits at once."""
    quoted = store._connections.sql.quoted
    with closing(postgres.connect()) as connection:

        def execute(statement: str, *told: Any) -> psycopg.Cursor[Any]:
            return connection.execute(statement.replace("{s}", quoted).encode(), told or None)

        yield execute


def rows(sql: Execute) -> list[list[tuple[Any, ...]]]:
    """All rows that rules protect."""
    found = [sql(f"SELECT * FROM {{s}}.{table}").fetchall() for table in KEPT]
    return [sorted(some, key=repr) for some in found]  # some tables have no key to order by


def refused(sql: Execute, statement: str, why: str = "session_fsm: ") -> None:
    """Expect the database to refuse a statement, and to stay as it is."""
    before = rows(sql)
    with pytest.raises(psycopg.errors.IntegrityError, match=why):
        sql(statement)
    assert rows(sql) == before


# --- moves ---------------------------------------------------------------------------------------


def test_postgres_constraints_accept_the_edges_alone(sql: Execute) -> None:
    """Of all ordered pairs of statuses the database lets exactly the edges pass.

    Writing a status over itself is no move: it is refused where the status is final only.
    """
    for source, target in product(WORDS, [*WORDS, "asleep", ""]):
        statement = (
            f"UPDATE {{s}}.session SET status = '{target}', revision = revision + 1"
            f" WHERE session_id = '{source}'"
        )
        stays = source == target and source != "terminated"
        if (source, target) in EDGES or stays:
            sql("BEGIN")
            assert sql(statement).rowcount == 1
            query = "SELECT status FROM {s}.session WHERE session_id = %s"
            assert sql(query, source).fetchone() == (target,)
            sql("ROLLBACK")
        else:
            why = "a final status is final|no row of the table has this move"
            refused(sql, statement, why)


def test_postgres_constraints_refuse_a_mass_update(sql: Execute) -> None:
    """A statement that is legal for some rows and not for all changes none."""
    refused(sql, "UPDATE {s}.session SET revision = revision + 1")
    refused(sql, "UPDATE {s}.session SET status = 'active', revision = revision + 1")


def test_postgres_constraints_keep_a_lifecycle_to_its_own_moves(
    store: PostgresStore, postgres_url: str, sql: Execute
) -> None:
    """A move that is legal in one lifecycle is not so in another one with the same words."""
    rows = [
        Row("leap", "active", "terminated", ending=True),
        Row("doze", "active", "idle"),
        Row("stop", "idle", "terminated", ending=True),
    ]
    leaping = Lifecycle(("active", "idle", "terminated"), "active", rows, name="leaping")
    with closing(PostgresStore(postgres_url, leaping)) as other:
        other.enlist("frogs")
        Author(other, "frogs").write("frog")
        refused(sql, "UPDATE {s}.session SET status = 'terminated', revision = 3"
                " WHERE session_id = 'active'", "no row of the table")  # fmt: skip
        frog = "UPDATE {{s}}.session SET status = '{}', revision = 2 WHERE session_id = 'frog'"
        refused(sql, frog.format("terminating"), "no row of the table has this move")
        assert sql(frog.format("terminated")).rowcount == 1
        toad = INSERT.format("toad", "leaping", "idle")
        refused(sql, toad, "begins in the initial status")
    assert store.counts()["active"] == 1


# --- what a session keeps ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("session_id = 'other', revision = revision + 1", "id and lifecycle never change"),
        ("session_id = 'idle', revision = revision + 1", "id and lifecycle never change"),
        ("lifecycle = 'other', revision = revision + 1", "id and lifecycle never change"),
        ("lifecycle = NULL, revision = revision + 1", "id and lifecycle never change"),
        ("revision = revision - 1", "each step raises the revision by one"),
        ("revision = revision + 2", "each step raises the revision by one"),
        ("revision = 0", "each step raises the revision by one"),
        ("revision = NULL", "each step raises the revision by one"),
        ("state = '{}'", "each step raises the revision by one"),
        ("state = NULL", "each step raises the revision by one"),
        ("digest = 'x'", "each step raises the revision by one"),
        ("recovery = 'x'", "each step raises the revision by one"),
        ("deadline_at = now()", "each step raises the revision by one"),
        ("ended_at = now()", "each step raises the revision by one"),
        ("status = 'idle'", "each step raises the revision by one"),
        ("status = 'idle', owner_id = 'x', token = 9", "each step raises the revision by one"),
        ("status = NULL", "each step raises the revision by one"),
        ("status = NULL, revision = revision + 1", "no row of the table has this move"),
        ("state = NULL, revision = revision + 1", "null value in column"),
        ("token = token - 1", "a fencing token never falls"),
        ("token = token - 1, revision = revision + 1", "a fencing token never falls"),
        ("token = NULL", "a fencing token never falls"),
    ],
)
def test_postgres_constraints_keep_a_session_itself(sql: Execute, change: str, why: str) -> None:
    """Id and lifecycle stay, a change is one step further, and no token falls."""
    refused(sql, f"UPDATE {{s}}.session SET {change} WHERE session_id = 'active'", why)


def test_postgres_constraints_let_owners_change_without_a_step(sql: Execute) -> None:
    """Whose session it is, and how often it was taken over, changes at the same revision."""
    for session_id in WORDS:
        sql(
            "UPDATE {s}.session SET owner_id = 'x', token = token + 1, attempts = attempts + 1,"
            " taken_at = now() WHERE session_id = %s",
            session_id,
        )
        assert sql(
            "UPDATE {s}.session SET owner_id = NULL WHERE session_id = %s", session_id
        ).rowcount == 1  # fmt: skip


def test_postgres_constraints_keep_what_is_final(sql: Execute) -> None:
    """Nothing of an ended session changes, whatever is tried."""
    for change in (
        "revision = revision + 1",
        "state = '{}', revision = revision + 1",
        "state = ''",
        "status = 'active'",
    ):
        statement = f"UPDATE {{s}}.session SET {change} WHERE session_id = 'terminated'"
        refused(sql, statement, "a final status is final|raises the revision by one")


# --- beginnings ----------------------------------------------------------------------------------

INSERT = (
    "INSERT INTO {{s}}.session (session_id, lifecycle, revision, status, state, digest, recovery)"
    " VALUES ('{}', '{}', 1, '{}', '{{}}', '', '')"
)
_OVER = [
    "",
    " ON CONFLICT DO NOTHING",
    " ON CONFLICT (session_id) DO UPDATE SET revision = session.revision + 1",
]


@pytest.mark.parametrize("status", [*WORDS, "asleep", ""])
def test_postgres_constraints_let_sessions_begin_at_the_beginning(
    sql: Execute, status: str
) -> None:
    """A session begins in the initial status of a lifecycle that the schema knows."""
    for over in _OVER:
        statement = INSERT.format("new", "session", status) + over
        if status == SESSION_LIFECYCLE.initial:
            sql("BEGIN")
            assert sql(statement).rowcount == 1
            sql("ROLLBACK")
        else:
            refused(sql, statement, "a session begins in the initial status")
        unknown = INSERT.format("newer", "unknown", status) + over
        refused(sql, unknown, "a session begins in the initial status")


def test_postgres_constraints_let_nothing_take_the_place_of_a_session(
    store: PostgresStore, sql: Execute
) -> None:
    """No insert over an id that is there replaces the session, and none is counted."""
    before = rows(sql)
    for existing in WORDS:
        statement = INSERT.format(existing, "session", "initializing")
        with pytest.raises(psycopg.errors.UniqueViolation):
            sql(statement)
        assert sql(f"{statement} ON CONFLICT DO NOTHING").rowcount == 0
        leap = " ON CONFLICT (session_id) DO UPDATE SET state = excluded.state"
        refused(sql, statement + leap, "each step raises the revision by one")
    assert rows(sql) == before
    assert store.check() == ()


# --- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", WORDS)
def test_postgres_constraints_let_only_what_has_ended_go(
    store: PostgresStore, sql: Execute, status: str
) -> None:
    """A session that lives can't be deleted; one that has ended can, and its events after it."""
    delete = f"DELETE FROM {{s}}.session WHERE session_id = '{status}'"
    events = f"DELETE FROM {{s}}.session_event WHERE session_id = '{status}'"
    refused(sql, events, "the events of a session stay with it")
    if status in map(str, SESSION_LIFECYCLE.final):
        assert sql(delete).rowcount == 1
        assert sql(events).rowcount > 1
        assert store.check() == ()
    else:
        refused(sql, delete, "only what has ended may be removed")
        refused(sql, "DELETE FROM {s}.session", "only what has ended may be removed")


@pytest.mark.parametrize("table", KEPT)
def test_postgres_constraints_let_no_table_be_emptied(sql: Execute, table: str) -> None:
    """TRUNCATE, which asks no trigger of a row, is refused, with CASCADE too."""
    refused(sql, f"TRUNCATE {{s}}.{table}", "removed one by one")
    refused(sql, f"TRUNCATE {{s}}.mark, {{s}}.{table} CASCADE", "removed one by one")


# --- events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    ["body = ''", "digest = 'x'", "revision = 9", "session_id = 'x'", "at = now()",
     "operation_id = ''", "body = body", "position = position", "position = 99",
     "position = NULL", "seq = DEFAULT"],
)  # fmt: skip
def test_postgres_constraints_let_no_event_change(sql: Execute, change: str) -> None:
    """An event is written once, and its position given once, whatever of it is to be changed."""
    for which in ("active", "terminated"):
        statement = f"UPDATE {{s}}.session_event SET {change} WHERE session_id = '{which}'"
        refused(sql, statement, "an event never changes")


def test_postgres_constraints_give_positions_behind_the_commit(
    store: PostgresStore, sql: Execute
) -> None:
    """An event comes without a position, gets one alone, and can't be removed before."""
    columns = "session_id, revision, at, body, digest, operation_id"
    event = "INSERT INTO {s}.session_event (%s) VALUES ('x', 1, now(), '', '', ''%s)"
    refused(sql, event % (f"{columns}, position", ", 99"), "gets its position once it is committed")
    sql(event % (columns, ""))
    refused(sql, "DELETE FROM {s}.session_event WHERE session_id = 'x'", "was not told yet stays")
    number = "UPDATE {s}.session_event SET position = %s WHERE session_id = 'x'"
    refused(sql, number % "99, body = 'x'", "an event never changes")
    refused(sql, number % "1", "duplicate key value")
    assert store.check() == ()
    assert sql(number % "99").rowcount == 1
    assert store.check() == ("database: the newest position is 11, an event has 99",)


def test_postgres_constraints_let_nothing_take_the_place_of_an_event(sql: Execute) -> None:
    """No insert over an event's revision removes or changes it."""
    statement = (
        "INSERT INTO {s}.session_event (session_id, revision, at, body, digest, operation_id)"
        " VALUES ('active', 1, now(), '', '', '')"
    )
    refused(sql, statement, "duplicate key value")
    over = " ON CONFLICT (session_id, revision) DO UPDATE SET body = ''"
    refused(sql, statement + over, "an event never changes")


def test_postgres_constraints_give_no_position_twice(sql: Execute) -> None:
    """What the feed has counted never falls, and stays."""
    for change in ("newest = newest - 1", "removed = -1", "newest = NULL"):
        refused(sql, f"UPDATE {{s}}.feed SET {change}", "no position is given twice")
    refused(sql, "DELETE FROM {s}.feed", "no position is given twice")
    refused(sql, "INSERT INTO {s}.feed VALUES (true, 0, 0)", "duplicate key value")
    refused(sql, "INSERT INTO {s}.feed VALUES (false, 0, 0)", "violates check constraint")


# --- checkpoints, items --------------------------------------------------------------------------


def test_postgres_constraints_let_checkpoints_stand_for_events(
    store: PostgresStore, sql: Execute
) -> None:
    """A checkpoint is there for an event that is, never the last; a later one replaces it."""
    author = Author(store)
    author.write("active", "touch", "touch", "touch")
    store.feed(0, 100)
    insert = "INSERT INTO {{s}}.session_checkpoint VALUES ('{}', {}, '', '')"
    for place in (("active", 5), ("active", 9), ("active", 0), ("nobody", 1)):
        refused(sql, insert.format(*place), "stands for events, the last stays")
    refused(
        sql,
        "DELETE FROM {s}.session_event WHERE session_id = 'active' AND revision = 1",
        "the events of a session stay with it",
    )
    sql(insert.format("active", 2))
    refused(
        sql,
        "DELETE FROM {s}.session_event WHERE session_id = 'active' AND revision = 3",
        "the events of a session stay with it",
    )
    for change in ("revision = 1", "revision = 2", "body = 'x'", "session_id = 'idle'"):
        refused(sql, f"UPDATE {{s}}.session_checkpoint SET {change}", "replaced by a later one")
    refused(
        sql, "UPDATE {s}.session_checkpoint SET revision = 5", "stands for events, the last stays"
    )
    assert sql("UPDATE {s}.session_checkpoint SET revision = 3").rowcount == 1
    refused(sql, "DELETE FROM {s}.session_checkpoint", "stays with it")


def test_postgres_constraints_keep_items_to_living_sessions(sql: Execute) -> None:
    """An item is of a session that lives, of the version that was given last, and never changes."""
    item = (
        "INSERT INTO {{s}}.session_item VALUES"
        " ('{}', 'files', '{}', 'session', {}, NULL, now(), 'null')"
    )
    for place in (("terminated", "k", 1), ("nobody", "k", 1), ("idle", "k", 1), ("active", "l", 2)):
        refused(sql, item.format(*place), "an item is of a session that has not ended")
    refused(sql, "UPDATE {s}.session_item SET body = '1'", "an item is replaced")
    version = "INSERT INTO {{s}}.session_item_version VALUES ('{}', {}, '')"
    refused(sql, version.format("idle", 2), "the versions of items begin at 1")
    refused(sql, version.format("active", 1), "duplicate key value")
    for change in ("version = 0", "version = 3", "session_id = 'idle'", "version = NULL"):
        refused(sql, f"UPDATE {{s}}.session_item_version SET {change}", "raises the version by one")
    refused(sql, "DELETE FROM {s}.session_item_version", "no version is given twice")


# --- counts --------------------------------------------------------------------------------------


def test_postgres_constraints_count_for_everybody(store: PostgresStore, sql: Execute) -> None:
    """Counts follow whoever writes, also where the store has no part in it."""
    sql(INSERT.format("new", "session", "initializing"))
    assert store.counts()["initializing"] == 2
    move = "UPDATE {s}.session SET status = 'active', revision = 2 WHERE session_id = 'new'"
    sql(move)
    assert (store.counts()["initializing"], store.counts()["active"]) == (1, 2)
    sql("DELETE FROM {s}.session WHERE session_id = 'terminated'")
    assert "terminated" not in store.counts()
    refused(sql, move.replace("active", "idle"), "each step raises")
    sql("BEGIN")
    sql(INSERT.format("newer", "session", "initializing"))
    sql("ROLLBACK")
    assert store.check() == ()


# --- the text of the schema ----------------------------------------------------------------------


def test_postgres_constraints_know_no_status() -> None:
    """No word of a lifecycle stands in the schema: what is legal is rows of a table."""
    text = TABLES + rules()
    assert text.count("CREATE TRIGGER") > 10
    assert set(re.findall(r"\w+", text.lower())).isdisjoint(WORDS)


def test_postgres_constraints_are_filled_from_the_lifecycle(sql: Execute) -> None:
    """The tables of rules hold the lifecycle's statuses and edges, and nothing else."""
    moves = sql("SELECT lifecycle, source, target FROM {s}.legal_move").fetchall()
    assert set(moves) == {("session", *edge) for edge in EDGES}
    statuses = sql("SELECT status, is_initial, is_final FROM {s}.lifecycle_status").fetchall()
    assert sorted(statuses) == sorted(
        (word, word == "initializing", word == "terminated") for word in WORDS
    )
    [known] = sql("SELECT name, fingerprint FROM {s}.lifecycle").fetchall()
    assert known == ("session", SESSION_LIFECYCLE.fingerprint)
