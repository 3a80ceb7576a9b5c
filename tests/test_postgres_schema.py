"""The schema of a PostgreSQL store is made once, known again, checked, and upgraded."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from postgres_server import PostgresServer

from session_fsm import (
    SESSION_LIFECYCLE,
    Lifecycle,
    LifecycleError,
    Row,
    SchemaVersionError,
    SessionManager,
    StoreUnavailableError,
)
from session_fsm.stores import PostgresStore, postgres_schema, postgres_upgrade, upgrade_store
from session_fsm.stores.postgres_links import Connection
from session_fsm.stores.postgres_rules import KEPT
from session_fsm.stores.postgres_schema import SCHEMA_VERSION
from session_fsm.stores.postgres_shape import shape_of
from session_fsm.stores.postgres_sql import Sql
from session_fsm.stores.records import UpgradeReport
from session_fsm.testing.store_batches import in_threads

TOGETHER = 8
FORMATS = Path(__file__).parent / "data/formats"
_OTHER_RULES = (
    "FUNCTION {s}.session_rules() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
)
STRICTER = SESSION_LIFECYCLE.extend(
    rows=[Row("wake", "idle", "active")], name=SESSION_LIFECYCLE.name
)
"""The same moves, with another row."""
LEAPING = Lifecycle(
    ("active", "terminated"),
    "active",
    [Row("leap", "active", "terminated", ending=True)],
    name=SESSION_LIFECYCLE.name,
)
"""Another move."""


@pytest.fixture
def schema(postgres_url: str) -> str:
    """The schema that the URL names, quoted."""
    return Sql(postgres_url.rpartition("=")[2]).quoted


@pytest.fixture
def made(postgres_url: str, schema: str) -> str:
    """The same, with a store in it."""
    PostgresStore(postgres_url).close()
    return schema


def test_postgres_schema_is_made_once_by_all_who_come(
    postgres: PostgresServer, postgres_url: str, schema: str
) -> None:
    """Of those who open a new store together one makes it, and every one of them has it."""

    def come(_: int, barrier: threading.Barrier) -> tuple[str, ...]:
        barrier.wait()
        with closing(PostgresStore(postgres_url)) as store:
            return store.check()

    assert in_threads(TOGETHER, come) == [()] * TOGETHER
    for table in ("meta", "feed", "lifecycle"):
        assert postgres.execute(f"SELECT count(*) FROM {schema}.{table}") == [(1,)]


def test_postgres_schema_is_made_where_an_empty_one_is(
    postgres: PostgresServer, postgres_url: str, schema: str
) -> None:
    """A schema that somebody made for the store is used."""
    postgres.execute(f"CREATE SCHEMA {schema}")
    with closing(PostgresStore(postgres_url)) as store:
        assert store.check() == ()


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ("CREATE TABLE {s}.theirs (a int)", "another application"),
        ("CREATE TABLE {s}.meta (a int)", "another application"),
        ("CREATE TABLE {s}.meta (application text, version int)", "another application"),
        ("CREATE TABLE {s}.meta AS SELECT 'x'::text AS application, 1 AS version", "another app"),
    ],
)
def test_postgres_schema_of_others_is_left(
    postgres: PostgresServer, postgres_url: str, schema: str, statements: str, found: str
) -> None:
    """A schema with somebody else's tables is refused, and nothing is made in it."""
    postgres.execute(f"CREATE SCHEMA {schema}")
    for statement in statements.replace("{s}", schema).split(";"):
        postgres.execute(statement)
    for attempt in (PostgresStore, upgrade_store):
        with pytest.raises(SchemaVersionError, match=found):
            attempt(postgres_url)
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = %s"
    assert postgres.execute(tables, (schema.strip('"'),)) == [(1,)]


def test_postgres_schema_of_a_newer_version_is_refused(
    postgres: PostgresServer, postgres_url: str, made: str
) -> None:
    """A version that is not known here is named, and left, whatever else it has changed."""
    postgres.execute(f"UPDATE {made}.meta SET version = 99")
    postgres.execute(f"ALTER TABLE {made}.lifecycle RENAME TO lifecycles")
    for attempt in (PostgresStore, upgrade_store):
        with pytest.raises(SchemaVersionError, match="99 of a session store"):
            attempt(postgres_url)
    assert postgres.execute(f"SELECT version FROM {made}.meta") == [(99,)]


def test_postgres_schema_that_others_keep_making_is_told(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds again and again that others were first, and no schema, is told so."""

    def be_late(*_: object) -> None:
        raise psycopg.errors.DuplicateSchema("there already")

    monkeypatch.setattr(postgres_schema, "create", be_late)
    with pytest.raises(StoreUnavailableError, match="again and again"):
        PostgresStore(postgres_url)


def test_postgres_schema_needs_utf8(postgres: PostgresServer) -> None:
    """A database of another encoding, which can't keep every text, is refused."""
    name = postgres.new_schema()
    postgres.execute(
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    url = f"{postgres.url().rpartition('/')[0]}/{name}"
    with pytest.raises(StoreUnavailableError, match="LATIN1"):
        PostgresStore(url)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


# --- checks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DROP TRIGGER session_rules ON {s}.session", "trigger session_rules is missing"),
        ("ALTER TABLE {s}.session DISABLE TRIGGER session_rules", "session_rules is not as it was"),
        ("DROP INDEX {s}.session_by_deadline", "index session_by_deadline is missing"),
        ("ALTER TABLE {s}.session ALTER digest DROP NOT NULL", "session.digest is not as it was"),
        ('ALTER TABLE {s}.mark ALTER name TYPE text COLLATE "default"', "mark.name is not as"),
        ("ALTER TABLE {s}.session DROP COLUMN document", "session.document is missing"),
        (f"CREATE OR REPLACE {_OTHER_RULES}", "function session_rules is not as it was"),
        ("DELETE FROM {s}.legal_move WHERE source = 'idle'", "legal_move is not as lifecycle"),
        ("UPDATE {s}.lifecycle_status SET is_final = false", "lifecycle_status is not as"),
        ("INSERT INTO {s}.session_count VALUES ('session', 'idle', 3)", "'idle', 3 counted"),
        ("ALTER TABLE {s}.feed DISABLE TRIGGER ALL;; DELETE FROM {s}.feed", "lacks its row"),
    ],
)
def test_postgres_schema_check_names_what_was_changed(
    postgres: PostgresServer, postgres_url: str, made: str, statement: str, problem: str
) -> None:
    """What is missing or was changed is named by the check of the store."""
    with closing(PostgresStore(postgres_url)) as store:
        assert store.check() == ()
        for each in statement.replace("{s}", made).split(";;"):
            postgres.execute(each)
        assert any(problem in found for found in store.check()), store.check()


# --- upgrades ------------------------------------------------------------------------------------


def test_postgres_upgrade_makes_a_store(postgres_url: str) -> None:
    """Where there is none, one is made, once; a second time there is nothing to do."""
    made = upgrade_store(postgres_url)
    assert made == UpgradeReport(found=0, version=SCHEMA_VERSION, sessions=0)
    with closing(PostgresStore(postgres_url)) as store, SessionManager(store) as manager:
        manager.create("a")
    again = upgrade_store(postgres_url)
    assert again == UpgradeReport(found=SCHEMA_VERSION, version=SCHEMA_VERSION, sessions=1)


def test_postgres_upgrade_knows_other_rows_of_a_lifecycle(postgres_url: str, made: str) -> None:
    """Other rows with the same moves are made known anew; with other moves they are refused."""
    with pytest.raises(LifecycleError, match="session-fsm upgrade"):
        PostgresStore(postgres_url, STRICTER)
    assert upgrade_store(postgres_url, STRICTER).renewed
    PostgresStore(postgres_url, STRICTER).close()
    with pytest.raises(LifecycleError, match="another name"):
        PostgresStore(postgres_url, LEAPING)
    with pytest.raises(LifecycleError, match="another name"):
        upgrade_store(postgres_url, LEAPING)
    PostgresStore(postgres_url, STRICTER).close()


def test_postgres_upgrade_makes_rules_anew(
    postgres: PostgresServer, postgres_url: str, made: str
) -> None:
    """Triggers and functions that were changed are again what they were."""
    postgres.execute(f"DROP TRIGGER session_rules ON {made}.session")
    postgres.execute(f"ALTER TABLE {made}.session_event DISABLE TRIGGER ALL")
    with closing(PostgresStore(postgres_url)) as store:
        assert len(store.check()) > 2
        upgrade_store(postgres_url)
        assert store.check() == ()
    with pytest.raises(psycopg.errors.CheckViolation):
        postgres.execute(f"TRUNCATE {made}.{KEPT[0]}")


@contextmanager
def older(version: int) -> Iterator[None]:
    """Be the library of an older version, which says the same to the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_schema, "SCHEMA_VERSION", version)
        yield


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_postgres_upgrade_brings_an_older_schema_up(
    postgres: PostgresServer, postgres_url: str, schema: str, version: int
) -> None:
    """A schema as it was made then, with sessions, is the present one, and nothing is lost."""
    script = (FORMATS / f"postgres-{version}.sql").read_text(encoding="utf-8")
    sql = Sql(postgres_url.rpartition("=")[2])
    with psycopg.connect(postgres.url()) as link:
        link.execute(f"CREATE SCHEMA {schema}".encode())
        link.execute(sql(script))
        link.execute(
            sql("INSERT INTO {s}.meta (application, version, made) VALUES (%s, %s, %s)"),
            (postgres_schema.APPLICATION, version, json.dumps(shape_of(link, sql))),
        )
        postgres_schema.register(link, sql, SESSION_LIFECYCLE)
    with older(version), SessionManager(postgres_url) as manager:
        for number in range(3):
            manager.create(f"s{number}")
        manager.fire("s0", "go_idle")
        expected = [manager.history(each) for each in ("s0", "s1", "s2")]
    with pytest.raises(SchemaVersionError, match="session-fsm upgrade"):
        SessionManager(postgres_url)
    report = upgrade_store(postgres_url)
    assert report == UpgradeReport(found=version, version=SCHEMA_VERSION, sessions=3)
    with SessionManager(postgres_url) as manager:
        assert [manager.history(each) for each in ("s0", "s1", "s2")] == expected
        assert {name: n for name, n in manager.counts().items() if n} == {"active": 2, "idle": 1}
        manager.fire("s1", "go_idle")
        assert {name: n for name, n in manager.counts().items() if n} == {"active": 1, "idle": 2}
        assert manager.verify().ok
    with closing(PostgresStore(postgres_url)) as store:
        assert store.check() == ()


class Step:
    """A step to the version after the present one, and what is done in the middle of it.

    Args:
        middle: Called with the connection, behind the first half.
    """

    def __init__(self, middle: Callable[[Connection], object] | None = None) -> None:
        self.done = 0
        self._middle = middle

    def __call__(self, link: Connection, sql: Sql) -> None:
        """Add a column, and fill it."""
        self.done += 1
        link.execute(sql("ALTER TABLE {s}.session ADD COLUMN note text"))
        if self._middle is not None:
            self._middle(link)
        link.execute(sql("UPDATE {s}.session SET note = session_id"))


@contextmanager
def newer(step: Step) -> Iterator[None]:
    """Be a later version of the library, which has a step more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        patch.setattr(postgres_upgrade, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        patch.setattr(postgres_upgrade, "_STEPS", {SCHEMA_VERSION: step})
        yield


@pytest.fixture
def lived_in(postgres_url: str) -> str:
    """The same, with a store in it that has a session."""
    with SessionManager(postgres_url) as manager:
        manager.create("a")
    return postgres_url


def check_lives(url: str, *, revision: int) -> None:
    """See that the session is there, and moves, and that nothing is wrong."""
    with SessionManager(url) as manager:
        assert manager.touch("a").revision == revision
        assert manager.verify().ok


def test_postgres_upgrade_is_made_once_by_all_who_come(
    postgres: PostgresServer, lived_in: str, schema: str
) -> None:
    """Of those who upgrade together one does it; then it is as if it had been made so."""
    step = Step()

    def come(_: int, barrier: threading.Barrier) -> UpgradeReport:
        barrier.wait()
        return upgrade_store(lived_in)

    with newer(step):
        with pytest.raises(SchemaVersionError, match="session-fsm upgrade"):
            SessionManager(lived_in)
        reports = in_threads(TOGETHER, come)
        new = SCHEMA_VERSION + 1
        assert sorted(each.found for each in reports) == [SCHEMA_VERSION] + [new] * (TOGETHER - 1)
        assert {(each.version, each.sessions) for each in reports} == {(new, 1)}
        assert step.done == 1
        check_lives(lived_in, revision=3)
        assert postgres.execute(f"SELECT note FROM {schema}.session") == [("a",)]
        postgres.execute(f"ALTER TABLE {schema}.session DROP COLUMN note")
        with closing(PostgresStore(lived_in)) as store:
            assert [each for each in store.check() if "session.note" in each], store.check()
    with pytest.raises(SchemaVersionError, match=f"version {SCHEMA_VERSION}"):
        SessionManager(lived_in)


def test_postgres_upgrade_that_fails_leaves_all_as_it_was(lived_in: str) -> None:
    """A step that fails half-way leaves the older version, with its rules, to its library."""

    def fail(_: Connection) -> None:
        raise RuntimeError("out of ideas")

    with newer(Step(fail)), pytest.raises(RuntimeError, match="out of ideas"):
        upgrade_store(lived_in)
    check_lives(lived_in, revision=3)


def test_postgres_upgrade_is_made_again_where_its_connection_is_lost(lived_in: str) -> None:
    """A server that throws it out half-way has it begun again, from the older version."""
    left = [b"SELECT pg_terminate_backend(pg_backend_pid())"]
    step = Step(lambda link: link.execute(left.pop()) if left else None)
    with newer(step):
        report = upgrade_store(lived_in)
        assert (report.found, report.version) == (SCHEMA_VERSION, SCHEMA_VERSION + 1)
        assert step.done == 2
        check_lives(lived_in, revision=3)


@pytest.fixture(autouse=True)
def _nothing_is_left(postgres: PostgresServer) -> Iterator[None]:
    """Locks that a test would leave are met at its end, not in the next one."""
    yield
    assert postgres.execute("SELECT count(*) FROM pg_prepared_xacts") == [(0,)]
