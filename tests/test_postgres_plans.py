"""No statement of the PostgreSQL store reads a large table from end to end, at a million rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any, Final

import psycopg
import pytest
from postgres_million import LARGE, ROWS, fill
from postgres_server import PostgresServer

import session_fsm.stores
from session_fsm import CorruptRecordError, RevisionConflictError
from session_fsm.items import Clear, Delete, Put
from session_fsm.stores import PostgresStore
from session_fsm.stores.postgres_arrays import Packed, PackedDumper
from session_fsm.stores.postgres_commit import PreparedCommit
from session_fsm.stores.postgres_counts import roll_up, tidy
from session_fsm.stores.postgres_group import move_together
from session_fsm.stores.postgres_sql import Sql
from session_fsm.stores.records import Work
from session_fsm.testing.authors import END_OF_TIME, Author

MIDDLE = "s0050000"
AT = datetime(2026, 1, 7, tzinfo=UTC)
READS_EVERYTHING = {
    # What they promise is about every row.
    "postgres_traffic.EVENTS",
    "postgres_traffic.CHECKPOINTS",
    "postgres_checks._COUNTS",
    "postgres_checks._FEED",
    "postgres_tables._ALL",
}

AFTER_A_FAULT = {
    "postgres_commit._LANDED": ("one-0", "nothing"),
    "postgres_commit._FORGOTTEN": {"id": MIDDLE, "revision": 1},
    "postgres_doubts._AWAIT": (["one-0", MIDDLE],),
    "postgres_doubts._IS_NOTED": ("taken/nothing",),
    "postgres_doubts._HANDS": (["one-0", MIDDLE], "nobody"),
}
"""What is asked only where an answer was lost, and with what."""


class Recorder:
    """Keeps each statement that is executed, with what it was told last.

    Attributes:
        seen: What each statement was told, by its text.
    """

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def note(self, query: Any, told: Any) -> None:
        """Keep a statement."""
        text = query.decode() if isinstance(query, bytes) else str(query)
        self.seen[text] = told


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What is executed by psycopg from now on."""
    recorder = Recorder()
    execute = psycopg.Cursor.execute

    def noted(cursor: Any, query: Any, params: Any = None, **more: Any) -> Any:
        recorder.note(query, params)
        return execute(cursor, query, params, **more)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    return recorder


@pytest.fixture(scope="module")
def million(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a store with a million rows in each table that grows."""
    schema = postgres.new_schema()
    url = postgres.url(more=f"?schema={schema}")
    PostgresStore(url).close()
    fill(postgres, Sql(schema))
    yield url
    postgres.execute(f"DROP SCHEMA {schema} CASCADE")


def use(store: PostgresStore, number: int) -> None:
    """Call every method of a store that is not about every row."""
    me, other = f"me-{number}", f"other-{number}"
    one, two = f"one-{number}", f"two-{number}"
    store.enlist(me)
    store.enlist(other)
    assert store.is_alive(me)
    author, sql = Author(store, me), store._connections.sql
    author.write(one, "activate", claims=[Work("task", "t")])
    author.write(one, "touch", "touch", claims=[Work("worker")])
    author.put(one, Put("notes", "k", 0))  # of a session of one's own
    late = author.draft(one, "touch")
    author.write(one, "touch", stops_worker=True, writes=[Put("files", "k", 1)])
    author.write(one, "touch", releases=[Work("task", "t")])
    with pytest.raises(RevisionConflictError):
        store.commit(late)
    assert store.to_stop(me) == (one,)
    store.release(one, [Work("worker")], me)
    author.put(one, Put("files", "k", 2), Put("files", "l", 3, ttl_seconds=1), Delete("files", "m"))
    author.put(one, Clear("files"), Put("files", "k", 4))
    assert store.item(one, "files", "k", AT) is not None
    assert store.item(MIDDLE, "files", "nothing", AT) is None
    assert len(store.items(one, "files", 100, None, AT)) == 1
    assert store.drop_expired_items(AT, 10) == 10
    assert store.load(one) is not None
    assert store.tail(one)[0] > 1
    move = PreparedCommit(author.draft(one, "touch"), store.lifecycle, sql)
    [made] = store._connections.outside_batch(lambda link: move_together(link, [move]))
    assert made is not None
    assert store.landed(one, f"{me}-1")
    assert not store.landed(one, "nothing")
    assert len(store.history(one)) == len(store.chain(one)) == 7
    assert len(store.feed(store.feed(0, 0).newest - 3, 100).events) == 3
    assert len(store.feed(0, 100, one).events) == 7
    for after in (0, ROWS // 2):
        with suppress(CorruptRecordError):
            store.feed(after, 100)
    for statuses in (["active"], ["active", "idle", "terminated"], ["nothing"]):
        for behind in (None, MIDDLE):
            with suppress(CorruptRecordError):
                store.page(statuses, 100, behind)
    assert sum(store.counts().values()) >= 1
    assert len(store.due(AT, 100, None)) == len(store.due(AT, 100, (AT - _DAY, MIDDLE))) == 100
    assert store.next_deadline() is not None
    assert len(store.ids(100, None)) == len(store.ids(100, MIDDLE)) == 100
    with suppress(CorruptRecordError):
        store.ended(AT, 100)
    assert store.work_in(MIDDLE) == (Work("task", "t"),)
    assert store.work_of(MIDDLE, "nobody") == ()
    store.set_mark(me, b"1")
    assert store.mark(me) == b"1"
    assert len(store.marks("m000000")) == 9
    store.drop_mark(me)
    author.compact(one, keep=2)
    author.write(two, "activate", "terminate", "finish", claims=[Work("task", "t")])
    author.bury(two)
    author.write(one, "touch", claims=[Work("worker"), Work("task", "t")])
    author.write(one, "touch", releases=[Work("worker")])
    author.write(one, "touch", claims=[Work("worker")])
    store.dismiss(me)
    assert [each.session_id for each in store.abandoned()] == [one]
    assert [each.session_id for each in store.abandoned(one)] == [one]
    [taken] = store.take_over(other, 10, restarting=True)
    store.give_back(taken)
    [taken] = store.take_over(other, 10, restarting=False)
    assert store.take_over(other, 10, restarting=True) == ()
    store.release(one, taken.work, other)
    with store.batch():
        Author(store, other).write(two, "activate")
    store._leases.renew()
    assert store._tending.tend()
    tidy(store._connections)
    store._connections.write(lambda link: roll_up(link, store._connections.sql))
    store.dismiss(other)


_DAY = timedelta(days=1)


def scans(plan: Any) -> Iterator[str]:
    """Yield what a plan reads from end to end."""
    if isinstance(plan, list):
        for each in plan:
            yield from scans(each)
        return
    whole = "Index Cond" not in plan and plan["Node Type"] == "Bitmap Index Scan"
    if plan["Node Type"] in ("Seq Scan", "Sample Scan") or whole:
        yield plan.get("Relation Name", plan.get("Index Name"))
    yield from scans(plan.get("Plans", []))


MOST_THROWN_AWAY: Final = 1000
"""Most rows that a statement may read and not want: of a million, few are in any one answer."""


def thrown_away(plan: Any) -> Iterator[int]:
    """Yield how many rows each part of a plan has read for nothing."""
    if isinstance(plan, list):
        for each in plan:
            yield from thrown_away(each)
        return
    yield plan.get("Rows Removed by Filter", 0) * plan.get("Actual Loops", 1)
    yield from thrown_away(plan.get("Plans", []))


def test_postgres_plans_read_no_large_table(
    million: str, postgres: PostgresServer, recorder: Recorder
) -> None:
    """The plan of each statement leads through an index wherever a table is large."""
    with closing(PostgresStore(million)) as store:
        for number in range(2):
            use(store, number)
        sql = store._connections.sql
    for place, told in AFTER_A_FAULT.items():
        module, name = place.split(".")
        text = getattr(import_module(f"session_fsm.stores.{module}"), name)
        recorder.note(sql(text), told)
    explained, faults = 0, []
    with postgres.connect() as connection:
        connection.adapters.register_dumper(Packed, PackedDumper)
        for text, told in dict(recorder.seen).items():
            if not re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", text) or "{s}" in text:
                continue
            if sql.quoted not in text:
                continue
            # What only reads is done, too: an index may be read from end to end for one row of it.
            how = "ANALYZE, " if re.match(r"\s*SELECT\b", text) else ""
            plan = connection.execute(
                f"EXPLAIN ({how}FORMAT JSON) {text}".encode(), told
            ).fetchone()
            assert plan is not None
            plans = [each["Plan"] for each in plan[0]]
            if found := LARGE & set(scans(plans)):
                faults.append((sorted(found), text))
            if max(thrown_away(plans)) > MOST_THROWN_AWAY:
                faults.append((["many rows for few"], text))
            explained += 1
    assert faults == []
    assert explained > 60
    assert not not_seen(sql, recorder)


def not_seen(sql: Sql, recorder: Recorder) -> list[str]:
    """Name the statements in the code of the store that were not executed."""
    texts = [plain(text) for text in recorder.seen]
    missing: list[str] = []
    directory = Path(session_fsm.stores.__file__).parent
    for path in sorted(directory.glob("postgres*.py")):
        if path.stem in ("postgres_ddl", "postgres_rules", "postgres_upgrade", "postgres_shape"):
            continue
        module = import_module(f"session_fsm.stores.{path.stem}")
        for name, value in vars(module).items():
            if not isinstance(value, str) or "{s}." not in value or "CREATE TABLE" in value:
                continue
            # A statement may be put together from several: all that stands there has been said.
            pieces = [
                plain(each.replace("{s}", sql.quoted))
                for each in re.split(r"\{(?!s\})\w+\}", value)
            ]
            if not any(all(piece in text for piece in pieces) for text in texts):
                missing.append(f"{path.stem}.{name}")
    return sorted(set(missing) - READS_EVERYTHING)


def plain(text: str) -> str:
    """Return a statement without the places of what it is told, and in one line."""
    return " ".join(re.sub(r"%(\(\w+\))?[sbt]|\$\d+", "?", text).split())


def test_postgres_plans_are_what_is_done(million: str, postgres: PostgresServer) -> None:
    """The server itself counts no reading of a large table from end to end, in triggers neither.

    Statements are used again and again, so that plans are met that the server keeps for any value.
    """
    schema = Sql(million.rpartition("=")[2]).schema
    before = counted(postgres, schema)
    with closing(PostgresStore(million)) as store:
        for number in range(10, 18):
            use(store, number)
    with postgres.connect() as connection:
        connection.execute(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            b" WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        others = (
            b"SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend'"
            b" AND pid <> pg_backend_pid()"
        )
        end = monotonic() + 30
        while connection.execute(others).fetchone() is not None and monotonic() < end:
            pass  # they tell what they did when they end
    after = counted(postgres, schema)
    assert {each: after[each] - before[each] for each in LARGE} == dict.fromkeys(LARGE, 0)


def counted(postgres: PostgresServer, schema: str) -> dict[str, int]:
    """Return how often each table was read from end to end."""
    query = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE schemaname = %s"
    return dict(postgres.execute(query, (schema,)))


def test_postgres_plans_tell_a_table_that_is_read_whole(
    million: str, postgres: PostgresServer
) -> None:
    """What a plan without an index looks like is told from one with an index."""
    schema = Sql(million.rpartition("=")[2]).quoted
    with postgres.connect() as connection:
        for condition, found in (("digest = 'x'", ["session"]), ("session_id = 'x'", [])):
            query = f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {schema}.session WHERE {condition}"
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            assert list(scans([each["Plan"] for each in row[0]])) == found
    assert END_OF_TIME > AT
