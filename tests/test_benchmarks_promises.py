"""What each promise of the store on PostgreSQL costs: that each is really taken away, alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from psycopg import errors

from benchmarks import (
    postgres_beside,
    postgres_costs,
    postgres_pairs,
    postgres_promises,
    postgres_server,
)
from benchmarks.measuring import Record, Turn
from benchmarks.postgres_meter import Meter, RoundTrips, Spent
from benchmarks.postgres_promises import (
    ALL,
    ANOTHER,
    AS_IT_IS,
    COUNTS,
    DOCUMENTS,
    DURABILITY,
    FEED,
    FENCING,
    HINTS,
    HISTORY,
    INDEXES,
    PROMISES,
    RULES,
    VARIANTS,
    Lacking,
)
from session_fsm import FencedError
from session_fsm.stores import postgres_group
from session_fsm.stores.postgres_tokens import Token

NUMBERS = count(1)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the user may enter whom a server runs as; nothing is left in it."""
    with tempfile.TemporaryDirectory(prefix="session-fsm-promises-") as directory:
        yield Path(directory)
        assert list(Path(directory).iterdir()) == []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server such as the benchmark starts for itself, with less memory."""
    with (
        tempfile.TemporaryDirectory(prefix="session-fsm-promises-") as directory,
        postgres_server.passing(Path(directory), shared_buffers="64MB") as url,
    ):
        yield url


@pytest.fixture
def database(server: str) -> str:
    """The URL of a database that is empty."""
    return postgres_server.database(server, f"promises_of_{next(NUMBERS)}")


# --- whether a store holds to a promise ----------------------------------------------------------


@attrs.frozen
class Probed:
    """A store, and a connection to its database that is nobody's."""

    lacking: Lacking
    connection: psycopg.Connection[Any]

    def one(self, query: str) -> Any:
        """Return the one value that a query finds."""
        row = self.connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def grows(self, table: str) -> bool:
        """Tell whether a move adds rows to a table."""
        query = f"SELECT count(*) FROM session_fsm.{table}"
        before = self.one(query)
        self.lacking.moves[0]()
        return bool(self.one(query) > before)

    def has_indexes(self, *names: str) -> bool:
        """Tell whether all of some indexes are there, where none of them might be."""
        listed = ", ".join(f"'{name}'" for name in names)
        found = self.one(f"SELECT count(*) FROM pg_indexes WHERE indexname IN ({listed})")
        assert found in (0, len(names))
        return bool(found)


def refuses_an_illegal_move(probed: Probed) -> bool:
    """By SQL, to a status that no row leads to."""
    with probed.connection.transaction(force_rollback=True):
        try:
            with probed.connection.transaction():
                probed.connection.execute(
                    "UPDATE session_fsm.session SET status = 'nowhere', revision = revision + 1"
                )
        except errors.CheckViolation:
            return True
        return False


def has_documents(probed: Probed) -> bool:
    """Of sessions, and of events."""
    tables = ("session", "session_event", "session_checkpoint")
    found = []
    for table in tables:
        try:
            probed.connection.execute(f"SELECT document FROM session_fsm.{table}".encode())
        except errors.UndefinedColumn:
            found.append(False)
        else:
            found.append(True)
    assert len(set(found)) == 1
    return found[0]


def refuses_a_dead_owner(probed: Probed) -> bool:
    """As its row is gone; and one that states a token that is not the session's."""
    lacking, [session_id] = probed.lacking, probed.lacking.ids
    found = []
    owner_id = str(probed.one("SELECT owner_id FROM session_fsm.owner"))
    for token, expiry in ((None, "-infinity"), (Token(7), "infinity")):
        probed.connection.execute("UPDATE session_fsm.owner SET expires_at = %s", (expiry,))
        lacking.store._tokens.keep(owner_id, session_id, token)
        revision = lacking.manager.get(session_id).revision
        try:
            lacking.moves[0]()
        except FencedError:
            found.append(True)
        else:
            found.append(False)
        assert (lacking.manager.get(session_id).revision == revision) is found[-1]
    assert len(set(found)) == 1
    return found[0]


def waits_for_the_disk(probed: Probed) -> bool:
    """As its own connections say."""
    setting = "SELECT current_setting('synchronous_commit')"
    rows = probed.lacking.store._connections.read(
        lambda link: link.execute(setting.encode()).fetchall()
    )
    return bool(rows == [("on",)])


def gives_hints(probed: Probed) -> bool:
    """After a move: the thread runs that sends them."""
    probed.lacking.moves[0]()
    return bool(probed.lacking.store._hints._threads)


PROBES: Mapping[str, Callable[[Probed], bool]] = {
    RULES.name: refuses_an_illegal_move,
    COUNTS.name: lambda probed: probed.grows("session_count"),
    DOCUMENTS.name: has_documents,
    INDEXES.name: lambda probed: probed.has_indexes(
        "session_by_status", "session_by_deadline", "session_by_end"
    ),
    FEED.name: lambda probed: probed.has_indexes("session_event_to_number"),
    HISTORY.name: lambda probed: probed.grows("session_event"),
    HINTS.name: gives_hints,
    DURABILITY.name: waits_for_the_disk,
    FENCING.name: refuses_a_dead_owner,  # the last: it leaves a session that nobody may move
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_promises_are_taken_away_one_by_one(variant: str, database: str) -> None:
    """A store lacks what it is said to lack, holds to all else, and moves its session."""
    lacks = VARIANTS[variant]
    with (
        closing(Lacking(database, lacks)) as lacking,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        probed = Probed(lacking, connection)
        found = {name: probe(probed) for name, probe in PROBES.items()}
    assert found == {each.name: each not in lacks for each in PROMISES}


def test_promises_are_taken_from_many_commits_at_once_too() -> None:
    """What takes a promise from the statement of one commit takes it from that of many."""
    for promise, word in ((FENCING, "FROM living"), (HISTORY, "session_event")):
        text = postgres_group.MOVE
        assert word in text
        for mine, instead in promise.replaced:
            text = text.replace(mine, instead)
        assert word not in text


def test_promises_are_chosen_by_the_beginning_of_their_names() -> None:
    """Beside those that are asked for stands the store as it is; where none is, no store does."""
    assert postgres_promises.lacking(None) is VARIANTS
    assert list(postgres_promises.lacking(["counts", "all"])) == [AS_IT_IS, COUNTS.name, ALL]
    assert postgres_promises.lacking([]) == {}
    assert VARIANTS[AS_IT_IS] == VARIANTS[ANOTHER] == ()


# --- what is counted -----------------------------------------------------------------------------


def test_promises_count_round_trips(database: str) -> None:
    """A statement is one, a pipeline of several is one, and a transaction in pieces is three."""
    with psycopg.connect(database, autocommit=True) as connection:
        with RoundTrips([connection]) as one:
            connection.execute("SELECT 1")
        with RoundTrips([connection]) as pipelined, connection.pipeline():
            connection.execute("SELECT 1")
            connection.execute("SELECT 2")
        with RoundTrips([connection]) as pieces, connection.transaction():
            connection.execute("SELECT 1")
    assert (one.count, pipelined.count, pieces.count) == (1, 1, 3)


def test_promises_note_what_the_server_spends(server: str, database: str) -> None:
    """What is written at one database is found in the log, for each move of the turn."""
    with (
        psycopg.connect(server, autocommit=True) as looking,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        connection.execute("CREATE TABLE kept (body bytea)")
        meter = Meter(looking, database)

        def turn() -> Turn:
            for _ in range(10):
                connection.execute("INSERT INTO kept VALUES (decode(repeat('ab', 1000), 'hex'))")
            return Turn(10, 1.0)

        assert meter.turn(turn) == Turn(10, 1.0)
    assert 1000 < meter.spent.wal_bytes < 20_000
    assert meter.spent.cpu_seconds >= 0


def test_promises_are_compared_turn_by_turn() -> None:
    """What is less without a promise is the median of the differences, and so is a ratio."""
    with_it, without = Spent([5.0, 9.0, 7.0], [0.3] * 3), Spent([4.0, 3.0, 5.0], [0.1] * 3)
    assert without.less_than(with_it).wal_bytes == 2.0
    mine = Record([Turn(10, 1.0), Turn(20, 1.0), Turn(10, 1.0)])
    other = Record([Turn(10, 1.0), Turn(40, 1.0), Turn(15, 1.0)])
    pair = postgres_pairs.Pair(mine, other, with_it, without)
    assert postgres_pairs.ratios_told(pair) == ("1.50 ×", "1.00–2.00")


# --- all of it -----------------------------------------------------------------------------------


def test_promises_run_through(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command measures what is asked for, and writes it; a move is one round trip."""
    output = tmp_path / "figures.md"
    flags = ["--quick", "--directory", str(place), "--output", str(output)]
    flags += ["--rounds", "1", "--promises", "legal moves", "durability"]
    assert postgres_costs.main(flags, fsync=lambda _: 50e-6) == 0
    told = capsys.readouterr().out
    assert output.read_text(encoding="utf-8") == told
    assert "## What each promise costs" in told
    rows = [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row] == [
        AS_IT_IS,
        f"without {RULES.name}",
        f"without {DURABILITY.name}",
        AS_IT_IS,
        f"without {RULES.name}",
        "a heartbeat: a lease renewed, the time asked",
        "the upkeep that follows it, with nothing to do",
        "an event that is numbered, 1,000 at a time",
        "an event that is numbered, 10,000 at a time",
    ]
    assert "A move is 1.00 round trips to the server." in told


def test_promises_refuse_a_fast_file_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where an fsync takes under 50 µs no server is started, and the code is 3."""
    assert postgres_costs.main(["--directory", str(tmp_path)], fsync=lambda _: 49e-6) == 3
    assert "an fsync takes 49.0 µs" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_promises_number_every_event_that_has_no_position(server: str) -> None:
    """What is measured beside leaves no event without a position."""
    found = postgres_beside.measure(server, 2_100, 1)
    with psycopg.connect(postgres_server.of_database(server, "beside")) as connection:
        query = "SELECT count(position), count(*) - count(position) FROM session_fsm.session_event"
        assert connection.execute(query).fetchone() == (2_100 + 2 + 2 * postgres_beside.MOVES, 0)
    assert found.round_trips == 1.0
    numbered = [cost for name, cost in found.costs.items() if "numbered" in name]
    assert [sum(turn.moves for turn in cost.record.turns) for cost in numbered] == [2_000, 100]
