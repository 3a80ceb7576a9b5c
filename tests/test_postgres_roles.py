"""Each role does what it is for, with the rights that docs/postgres.md names and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from postgres_server import PostgresServer

from session_fsm import SESSION_LIFECYCLE, SessionManager, StoreUnavailableError
from session_fsm.errors import FencedError
from session_fsm.stores import PostgresStore, open_store, upgrade_store
from session_fsm.stores.postgres_counts import roll_up
from session_fsm.stores.postgres_rules import KEPT
from session_fsm.testing.authors import END_OF_TIME

DOCUMENT = Path(__file__).parent.parent / "docs" / "postgres.md"
ROLES = ("session_fsm_upgrade", "session_fsm_run", "session_fsm_read")
OTHER = SESSION_LIFECYCLE.extend(name="other")
TABLES = (*KEPT, "meta", "lifecycle", "lifecycle_status", "legal_move", "work", "owner", "mark")


# Behind the back of the triggers, so that each round begins anew.
EMPTY = """
SET session_replication_role = replica;
DELETE FROM session_fsm.session; DELETE FROM session_fsm.session_event;
DELETE FROM session_fsm.session_checkpoint; DELETE FROM session_fsm.session_count;
DELETE FROM session_fsm.session_item; DELETE FROM session_fsm.session_item_version;
DELETE FROM session_fsm.work; DELETE FROM session_fsm.owner; DELETE FROM session_fsm.feed_removed;
UPDATE session_fsm.feed SET newest = 0, removed = 0;
"""


def script(which: str) -> str:
    """Return the statements of the document for somebody."""
    found: list[str] = re.findall(
        rf"^```sql {which}\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(found) == 1
    return found[0]


class Database:
    """A database of its own, and the three roles of the document in it.

    Args:
        server: The server; the roles are the whole server's.
        name: Name of the database.
    """

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.name = name

    def url(self, role: str) -> str:
        """Return the URL for a role."""
        base, _, _ = self.server.url(user=role).rpartition("/")
        return f"{base}/{self.name}"

    def execute(self, role: str, statements: str) -> None:
        """Have a role execute statements, all in one transaction."""
        with closing(psycopg.connect(self.url(role))) as connection:
            connection.execute(statements.encode())
            connection.commit()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """A database with the roles, as the administrator leaves it."""
    name = postgres.new_schema()
    postgres.execute(f"CREATE DATABASE {name}")
    # Rights that everybody has are none that the document could leave out.
    postgres.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    database = Database(postgres, name)
    database.execute("postgres", "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    database.execute("postgres", script("admin").replace("DATABASE app", f"DATABASE {name}"))
    yield database
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for role in ROLES:
        postgres.execute(f"DROP ROLE {role}")


@pytest.fixture
def ready(database: Database) -> Database:
    """The same, upgraded, and with the rights of the others granted."""
    upgrade, _, _ = ROLES
    assert upgrade_store(database.url(upgrade)).found == 0
    database.execute(upgrade, script("upgrade"))
    return database


@pytest.fixture
def run(ready: Database) -> Iterator[SessionManager]:
    """A manager of the role that runs; no heartbeat changes anything while a test looks."""
    store = PostgresStore(ready.url("session_fsm_run"), lease_seconds=3600.0)
    with closing(store), SessionManager(store) as made:
        yield made


def everything(database: Database) -> list[object]:
    """Return all rows of all tables."""
    with closing(psycopg.connect(database.url("postgres"))) as connection:
        queries = (f"SELECT * FROM session_fsm.{each} ORDER BY 1, 2" for each in TABLES)
        return [connection.execute(query.encode()).fetchall() for query in queries]


def test_roles_nobody_makes_what_is_the_upgrade_roles(database: Database) -> None:
    """In an empty schema the roles that run and read find no store, and say who makes one."""
    for role in ROLES[1:]:
        with pytest.raises(StoreUnavailableError, match="session-fsm upgrade"):
            open_store(database.url(role))
    with closing(psycopg.connect(database.url("postgres"))) as connection:
        query = b"SELECT count(*) FROM pg_class WHERE relnamespace = 'session_fsm'::regnamespace"
        assert connection.execute(query).fetchone() == (0,)


def test_roles_upgrade_makes_a_store_and_its_lifecycles_known(ready: Database) -> None:
    """The owner of the schema makes it, once; a lifecycle that is not known waits for it."""
    upgrade, run, _ = ROLES
    report = upgrade_store(ready.url(upgrade))
    assert (report.found, report.renewed) == (report.version, False)
    before = everything(ready)
    with pytest.raises(StoreUnavailableError, match="'other' is not known"):
        open_store(ready.url(run), lifecycle=OTHER)
    with pytest.raises(StoreUnavailableError):
        upgrade_store(ready.url(run), OTHER)
    assert everything(ready) == before
    upgrade_store(ready.url(upgrade), OTHER)
    with closing(open_store(ready.url(run), lifecycle=OTHER)) as store:
        assert store.check() == ()


def all_that_is_run(url: str) -> None:
    """Use every verb that writes in a store of one's own, and see that it is in order."""
    with closing(PostgresStore(url)) as store:
        with SessionManager(store) as run:
            _use(run)
        sql, connections = store._connections.sql, store._connections
        connections.write(lambda link: roll_up(link, sql))
        owners = sql("SELECT count(*) FROM {s}.owner")
        found = connections.read(lambda link: link.execute(owners).fetchone())
        assert found == (0,), "owners"
        assert store.check() == ()


def _use(run: SessionManager) -> None:
    store = run.store
    run.create("a")
    run.fire("a", "go_idle")
    run.transition("a", "active")
    run.touch("a")
    run.start_conversation("a")
    run.update("a", metadata={"k": 1})
    run.begin_task("a", "t")
    run.end_task("a", "t")
    table = run.table("a", "files")
    table.put("k", 1)
    table.put("k", 2, ttl_seconds=3600)
    table.delete("k")
    table.put("l", 1)
    table.clear()
    with run.batch():
        run.create("b")
        run.begin_task("b", "t")
        run.table("b", "files").put("k", 1, ttl_seconds=1)
    assert store.drop_expired_items(END_OF_TIME, 9) == 1
    store.set_mark("m", b"1")
    store.set_mark("m", b"2")
    store.drop_mark("m")
    assert run.position() > 0, "positions"
    assert run.compact("a", keep=5) > 0
    assert run.compact("a", keep=1) > 0
    run.recover()
    run.sweep()
    run.terminate("b", wait=False)
    assert run.terminate("a").status == "terminated"
    assert run.purge(ended_before=END_OF_TIME) == 1
    run.create("a")
    assert run.terminate("a").status == "terminated"
    assert run.purge(ended_before=END_OF_TIME) == 1
    assert run.verify().ok
    assert store.check() == ()


def test_roles_run_does_all_that_a_manager_does(ready: Database) -> None:
    """Every verb that writes, and every one that reads, works for the role that runs."""
    all_that_is_run(ready.url("session_fsm_run"))


def single_rights() -> list[str]:
    """Return each right of the runner by itself: privilege, columns and table."""
    found: list[str] = []
    for rights, table in re.findall(
        r"GRANT ([^;]*?)\s+ON (\S+) TO session_fsm_run;", script("upgrade")
    ):
        found += [f"{each.strip()} ON {table}" for each in re.split(r",\s*(?=[A-Z])", rights)]
    return found


def test_roles_run_needs_every_right_of_its_own(ready: Database) -> None:
    """Without any single right that the document grants to the runner, a verb is refused."""
    upgrade, run, _ = ROLES
    rights = single_rights()
    assert len(rights) > 20
    not_missed = []
    for right in rights:
        ready.execute(upgrade, f"REVOKE {right} FROM {run}")
        if not is_missed(right, ready.url(run)):
            not_missed.append(right)
        ready.execute(upgrade, f"GRANT {right} TO {run}")
        ready.execute("postgres", EMPTY)
    assert not_missed == []


def is_missed(right: str, url: str) -> bool:
    """Tell whether something does not go without a right, for the lack of it and nothing else."""
    try:
        all_that_is_run(url)
    except StoreUnavailableError as fault:
        return isinstance(fault.__cause__, psycopg.errors.InsufficientPrivilege)
    except FencedError:
        return right.endswith(".owner")  # nobody was enlisted
    except AssertionError as fault:
        what = "owners" if right.endswith(".owner") else "positions"
        return str(fault).startswith(what)
    return False


def test_roles_run_rolls_up_counts(ready: Database, run: SessionManager) -> None:
    """What the counts are added up from is put together by the role that runs."""
    run.create("a")
    count = "INSERT INTO session_fsm.session_count VALUES ('session', '{}', {})"
    statement = count.format("idle", 1) + "; " + count.format("idle", -1)
    ready.execute("session_fsm_run", "; ".join([statement] * 600))
    before = run.counts()
    [(rows,)] = counted(ready)
    assert rows <= 5
    assert run.counts() == before
    assert run.store.check() == ()


def test_roles_run_tends_on_a_heartbeat(ready: Database, run: SessionManager) -> None:
    """What is done on a heartbeat needs no right that the role that runs does not have."""
    run.create("a")
    store = run.store
    assert isinstance(store, PostgresStore)
    statement = "INSERT INTO session_fsm.session_count VALUES ('session', 'idle', {})"
    ready.execute("session_fsm_run", "; ".join(map(statement.format, (1, -1) * 600)))
    assert store._leases.renew()
    assert store._tending.tend()
    assert len(store._tending._duties) == 2
    [(rows,)] = counted(ready)
    assert rows <= 5
    with closing(psycopg.connect(ready.url("postgres"))) as connection:
        query = b"SELECT count(*) FROM session_fsm.session_event WHERE position IS NULL"
        assert connection.execute(query).fetchone() == (0,)


def test_roles_have_time_outs_of_their_own(ready: Database) -> None:
    """Where a store says nothing of time-outs, the role has those of the document."""
    ready.execute("postgres", script("timeouts"))
    url = ready.url("session_fsm_run")
    with closing(PostgresStore(url, statement_timeout_seconds=None)) as store:
        for each in (store._connections, store._beats, store._hinting):
            found = each.read(
                lambda link: link.execute(
                    b"SELECT current_setting('statement_timeout'),"
                    b" current_setting('idle_in_transaction_session_timeout')"
                ).fetchone()
            )
            assert found == ("30s", "30s")


def counted(database: Database) -> list[tuple[int]]:
    """Return how many rows the counts are added up from."""
    with closing(psycopg.connect(database.url("postgres"))) as connection:
        return connection.execute(b"SELECT count(*) FROM session_fsm.session_count").fetchall()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO session_fsm.legal_move VALUES ('session', 'idle', 'terminated')",
        "UPDATE session_fsm.lifecycle_status SET is_final = false",
        "DELETE FROM session_fsm.lifecycle",
        "UPDATE session_fsm.meta SET version = 2",
        "TRUNCATE session_fsm.session",
        "TRUNCATE session_fsm.session_event",
        "UPDATE session_fsm.session_event SET body = ''",
        "INSERT INTO session_fsm.session_event (position) VALUES (9)",
        "UPDATE session_fsm.session_count SET sessions = 9",
        "DELETE FROM session_fsm.feed",
        "INSERT INTO session_fsm.feed VALUES (true, 0, 0)",
        "DELETE FROM session_fsm.feed_removed",
        "ALTER TABLE session_fsm.session DISABLE TRIGGER session_rules",
        "DROP TRIGGER session_rules ON session_fsm.session",
        "ALTER FUNCTION session_fsm.session_rules() RENAME TO rules",
        "SET session_replication_role = replica",
        "CREATE TABLE session_fsm.mine (a int)",
        "DROP SCHEMA session_fsm CASCADE",
    ],
)
def test_roles_run_can_not_get_round_the_rules(ready: Database, statement: str) -> None:
    """What would make an illegal move legal, or an event another one, is not the runner's right."""
    with closing(PostgresStore(ready.url("session_fsm_run"))) as store:
        SessionManager(store).create("a")
    before = everything(ready)
    for role in ROLES[1:]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ready.execute(role, statement)
    assert everything(ready) == before


def test_roles_read_reads_and_changes_nothing(ready: Database, run: SessionManager) -> None:
    """The role that reads is told all that is stored, and refused all that would change it."""
    run.create("a")
    run.table("a", "files").put("k", 1, ttl_seconds=1e9)
    told = run.store.feed(0, 100).events
    run.touch("a")  # has no position yet
    before = everything(ready)
    with closing(open_store(ready.url("session_fsm_read"))) as store:
        reader = SessionManager(store)
        assert reader.get("a") == run.get("a")
        assert [each.session_id for each in reader.list()] == ["a"]
        assert reader.counts() == run.counts()
        assert reader.history("a") == run.history("a")
        assert reader.traffic() == run.traffic()
        assert reader.table("a", "files").get("k") == 1
        assert store.feed(0, 100).events == told
        assert store.check() == ()
        assert reader.verify().ok
        assert store.abandoned() == ()
        for change in (
            lambda: store.set_mark("m", b""),
            lambda: store.drop_mark("m"),
            lambda: reader.create("b"),
            lambda: reader.touch("a"),
            lambda: reader.table("a", "files").put("k", 2),
            lambda: reader.table("a", "files").clear(),
            lambda: reader.compact("a", keep=1),
            lambda: store.drop_expired_items(END_OF_TIME, 9),
        ):
            with pytest.raises((StoreUnavailableError, FencedError)):
                change()
        reader.close()
    assert everything(ready) == before
    assert len(run.store.feed(0, 100).events) == len(told) + 1
