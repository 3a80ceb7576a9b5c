"""What verbs cost on PostgreSQL with a thousand sessions stored, and with a million.

The same verbs as on SQLite, one store in a database of its own for each size, both at one server
and in turns. The databases are filled once and kept; each run works on copies.

They are filled with what the library itself writes, by shorter ways than it takes: a manager on
`memory://` makes the sessions, and its commits are copied into the tables of a store that a manager
has made. While they are, the triggers are off that check each row, and what they would add, the
counts and the positions of the feed, is written beside; `verify` then reads the smaller store.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import attrs
import psycopg
from psycopg import sql

from session_fsm import SESSION_LIFECYCLE, SessionManager, dumps
from session_fsm.clock import ManualClock
from session_fsm.stores.memory import MemoryStore
from session_fsm.stores.records import Commit, ended_at

from . import scale, scale_stores
from .postgres_server import database, of_database, running
from .scale_verbs import TIMES, Store
from .targets import Verdict

IN_ONE_COPY: Final = 10_000
SCHEMA: Final = "session_fsm"
TRIGGERS_OFF: Final = ("session", "session_event")

_SESSION: Final = """
COPY session_fsm.session
    (session_id, lifecycle, revision, status, deadline_at, ended_at, state, digest, recovery)
FROM STDIN
"""
_EVENT: Final = """
COPY session_fsm.session_event
    (seq, session_id, revision, at, body, digest, operation_id, position)
FROM STDIN
"""


class Recording(MemoryStore):
    """A store in memory that keeps the commits that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Commit] = []

    def commit(self, commit: Commit) -> None:
        """Make a commit, and keep it."""
        super().commit(commit)
        self.commits.append(commit)


def memory_setting() -> str:
    """Return a quarter of the memory of this machine, which the manual advises."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{max(64, min(pages // 4 >> 20, 8192))}MB"


@attrs.frozen
class Room:
    """What a table of the largest store takes on disk.

    Attributes:
        table: Its name.
        rows: How many rows it has.
        row_bytes: Of a row with all that belongs to it, on average.
        index_bytes: Of its entries in all indexes, on average.
    """

    table: str
    rows: int
    row_bytes: float
    index_bytes: float


@attrs.frozen
class Growth:
    """What was measured with few and with many sessions stored; of no sizes, nothing."""

    records: scale.Records = attrs.field(factory=dict)
    rooms: tuple[Room, ...] = ()


def measure(directory: Path, sizes: Sequence[int], rounds: int) -> Growth:
    """Fill what is missing, and let the sizes take turns at each verb."""
    if not sizes:
        return Growth()
    with ExitStack() as held:
        settings = {"shared_buffers": memory_setting()}
        server = held.enter_context(running(directory / "filled", **settings))
        kept = filled(server, sorted(sizes))
        turns = {}
        for size, name in kept.items():
            url = database(server, f"working_{size}", template=name)
            warm_up(url)
            store = Store(url, size, moves=(rounds + 1) * TIMES["move"])
            turns[size] = held.enter_context(closing(store)).verbs()
        records = scale.by_verb(turns, rounds)
        return Growth(records, rooms_of(of_database(server, kept[max(kept)])))


def rooms_of(url: str) -> tuple[Room, ...]:
    """Return what the tables take that grow with each session and with each move."""
    query = (
        "SELECT relname, reltuples::bigint, pg_table_size(pg_class.oid),"
        " pg_indexes_size(pg_class.oid) FROM pg_class"
        " WHERE relnamespace = 'session_fsm'::regnamespace AND relname = ANY(%s)"
        " ORDER BY relname"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE session_fsm.session, session_fsm.session_event")
        rows = connection.execute(query, (list(TRIGGERS_OFF),)).fetchall()
    return tuple(
        Room(name, count, table / max(1, count), index / max(1, count))
        for name, count, table, index in rows
    )


def layout(server: str) -> str:
    """Return what tells the schema of this library from that of another version."""
    url = database(server, "empty")
    SessionManager(url).close()
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT version, made FROM session_fsm.meta").fetchone()
    return hashlib.sha256(repr(row).encode()).hexdigest()[:8]


def filled(server: str, sizes: Sequence[int]) -> dict[int, str]:
    """Return the name of a database for each size, made where it is missing."""
    mark = layout(server)
    names = {size: f"filled_{size}_{mark}" for size in sizes}
    with psycopg.connect(server, autocommit=True) as connection:
        found = {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}
        for old in found - set(names.values()):
            if old.startswith(("filled_", "working_", "filling")):
                dropped = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(old))
                connection.execute(dropped)
    for size, name in names.items():
        if name not in found:
            begin = time.perf_counter()
            fill(database(server, "filling"), size)
            if size == min(sizes):
                check_whole(of_database(server, "filling"))
            with psycopg.connect(server, autocommit=True) as connection:
                renamed = sql.SQL("ALTER DATABASE filling RENAME TO {}")
                connection.execute(renamed.format(sql.Identifier(name)))
            print(f"{size:,} filled in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return names


def fill(url: str, size: int) -> None:
    """Store so many sessions in a database that is empty."""
    SessionManager(url).close()
    clock = ManualClock(scale_stores.FILLED_FROM)
    counts: Counter[tuple[str, str]] = Counter()
    seq = 0
    with psycopg.connect(url, autocommit=True) as connection:
        for table in TRIGGERS_OFF:
            connection.execute(f"ALTER TABLE session_fsm.{table} DISABLE TRIGGER USER")
        for begin in range(0, size, IN_ONE_COPY):
            store = Recording()
            with SessionManager(store, clock=clock) as manager:
                scale_stores.fill(manager, clock, range(begin, min(size, begin + IN_ONE_COPY)))
            rows = dict(_session_rows(store.commits))
            counts.update((row[1], row[3]) for row in rows.values())
            with connection.cursor() as cursor:
                with cursor.copy(_SESSION) as copy:
                    for row in rows.values():
                        copy.write_row(row)
                with cursor.copy(_EVENT) as copy:
                    for event in _event_rows(store.commits):
                        seq += 1
                        copy.write_row((seq, *event, seq))
        for table in TRIGGERS_OFF:
            connection.execute(f"ALTER TABLE session_fsm.{table} ENABLE TRIGGER USER")
        connection.execute("UPDATE session_fsm.feed SET newest = %s", (seq,))
        restarted = "ALTER TABLE session_fsm.session_event ALTER seq RESTART WITH {}"
        connection.execute(sql.SQL(restarted).format(sql.Literal(seq + 1)))
        for (lifecycle, status), sessions in counts.items():
            connection.execute(
                "INSERT INTO session_fsm.session_count VALUES (%s, %s, %s)",
                (lifecycle, status, sessions),
            )
        connection.execute("VACUUM (ANALYZE, FREEZE)")
        connection.execute("CHECKPOINT")


def _session_rows(commits: Sequence[Commit]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield each session as each of its commits leaves it; the last is how it is stored."""
    lifecycle = SESSION_LIFECYCLE
    for commit in commits:
        last = commit.steps[-1]
        state = last.state
        yield commit.session_id, (
            commit.session_id, lifecycle.name, last.revision, str(state.status), last.deadline_at,
            ended_at(state, lifecycle), dumps(state, lifecycle), last.sealed.event.digest,
            str(getattr(state.config, "recovery", "release")),
        )  # fmt: skip


def _event_rows(commits: Sequence[Commit]) -> Iterator[tuple[Any, ...]]:
    for commit in commits:
        for step in commit.steps:
            event = step.sealed.event
            yield (commit.session_id, event.revision, event.at, step.sealed.body, event.digest,
                   commit.operation_id)  # fmt: skip


def check_whole(url: str) -> None:
    """Refuse a store with a session that its history does not rebuild, or without its rules.

    Raises:
        ValueError: `verify` has found something.
    """
    with SessionManager(url) as manager:
        report = manager.verify()
    if not report.ok:
        raise ValueError(f"what was filled in is not whole: {'; '.join(report.problems[:3])}")


def warm_up(url: str) -> None:
    """Have the server read all that is stored into its own memory, tables by way of an index."""
    with psycopg.connect(url, autocommit=True) as connection:
        for setting in ("seqscan", "bitmapscan", "sort"):
            connection.execute(f"SET enable_{setting} = off")
        connection.execute("SET max_parallel_workers_per_gather = 0")
        for read in (
            "SELECT max(octet_length(state)) FROM session_fsm.session WHERE session_id >= ''",
            "SELECT max(octet_length(body)) FROM session_fsm.session_event WHERE session_id >= ''",
            "SELECT count(*) FROM session_fsm.session_event WHERE position > 0",
            "SELECT count(*) FROM session_fsm.session_event WHERE position IS NULL",
            "SELECT count(*) FROM session_fsm.session WHERE lifecycle >= '' AND status >= ''",
            "SELECT count(*) FROM session_fsm.session WHERE deadline_at IS NOT NULL",
        ):
            connection.execute(read)


def verdicts(growth: Growth) -> Iterator[Verdict]:
    """Yield the targets of growth; none where it was not measured."""
    if growth.records:
        yield from scale.growth_verdicts(growth.records)


def lines(growth: Growth, rounds: int) -> Iterator[str]:
    """Yield what was found, as Markdown."""
    largest = max(next(iter(growth.records.values())))
    yield f"## With {largest:,} sessions stored"
    yield ""
    yield (
        f"Medians of {rounds} turns of one caller, in which the sizes follow each other; a ratio is"
        " the median of the ratios of the turns to those of the smallest size. Each size is in a"
        " database of its own at one server, whose `shared_buffers` are a quarter of the memory of"
        " the machine, and into which all was read before. Ids are random, and no session is moved"
        " twice, so that each move reads its session first. What is stored was made by a manager in"
        " memory; its states and events were copied into the tables with the triggers off that"
        " check each row, with the counts and positions beside that these would have led to, and"
        " `verify` found nothing wrong with the smallest."
    )
    yield ""
    yield from scale.cost_lines(growth.records)
    yield ""
    yield "What the largest of them takes on disk:"
    yield ""
    yield "| table | rows | bytes of a row | bytes of its index entries |"
    yield "|---|---:|---:|---:|"
    for room in growth.rooms:
        yield (
            f"| `{room.table}` | {room.rows:,} | {room.row_bytes:,.0f} | {room.index_bytes:,.0f} |"
        )
