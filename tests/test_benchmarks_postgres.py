"""The benchmarks at a PostgreSQL server: that each subject really does what is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from managing import START

from benchmarks import postgres, postgres_processes, postgres_scale, postgres_server, scale_stores
from benchmarks.measuring import Record, Turn
from benchmarks.postgres_floor import (
    PostgresFloor,
    PostgresFloorAtOnce,
    PostgresFloorUnsynced,
    Row,
)
from benchmarks.postgres_processes import Shape, Together
from benchmarks.postgres_server import NotDurableServerError
from benchmarks.postgres_subjects import (
    Checkpoints,
    PostgresLangGraph,
    PostgresOurs,
    PostgresOursAwaited,
)
from benchmarks.scale_verbs import Store
from session_fsm import SessionManager, dumps, serialize
from session_fsm.clock import ManualClock

NUMBERS = count(1)


@contextmanager
def readable_directory() -> Iterator[Path]:
    """Give a new directory that the user may enter whom a server runs as, which pytest's is not."""
    with tempfile.TemporaryDirectory(prefix="session-fsm-benchmarks-") as directory:
        yield Path(directory)
        assert list(Path(directory).iterdir()) == []


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for a server, of which nothing is left in it."""
    with readable_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server such as the benchmark starts for itself, with less memory."""
    with (
        readable_directory() as directory,
        postgres_server.passing(directory, shared_buffers="64MB") as url,
    ):
        yield url


@pytest.fixture
def database(server: str) -> str:
    """The URL of a database that is empty."""
    return postgres_server.database(server, f"database_{next(NUMBERS)}")


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return what a query finds."""
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


# --- the server --------------------------------------------------------------------------------


def test_benchmarks_refuse_a_fast_file_system_for_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where an fsync takes under 50 µs no server is started, one line says why, the code is 3."""
    output = tmp_path / "figures.md"
    arguments = ["--quick", "--directory", str(tmp_path), "--output", str(output)]
    assert postgres.main(arguments, fsync=lambda _: 49e-6) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert "an fsync takes 49.0 µs" in told.err
    assert list(tmp_path.iterdir()) == []


def test_benchmarks_refuse_a_server_that_does_not_sync(place: Path) -> None:
    """A server that acknowledges what is not on disk is not measured, and is not left running."""
    with (
        pytest.raises(NotDurableServerError, match="fsync = off") as refused,
        postgres_server.passing(place, fsync="off", shared_buffers="64MB"),
    ):
        pytest.fail("it was given out")
    assert refused.value.settings["synchronous_commit"] == "on"


def test_benchmarks_describe_the_server(server: str) -> None:
    """What durability rests on is told as the server says it."""
    told = postgres_server.described(server)
    assert told.startswith("PostgreSQL 1")
    assert "fsync = on, synchronous_commit = on, full_page_writes = on" in told
    assert "shared_buffers = 64MB" in told


# --- subjects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PostgresFloor, PostgresFloorAtOnce])
def test_benchmarks_floor_stores_the_bytes_of_ours_at_a_server(
    kind: type[PostgresFloor], database: str
) -> None:
    """For the same moves at the same instants the floor has our states, events and digests."""
    clock = ManualClock(START)
    floor = kind(database, 1)
    with SessionManager(database, clock=clock) as manager:
        created = manager.create("a", metadata={"user": "ada"})
        last = manager.history("a")[-1]
        row = Row(
            floor.pool,
            floor.write,
            serialize(created.state),
            revision=last.revision,
            digest=last.digest,
            now=clock.now,
        )
        for trigger in ("go_idle", "resume", "go_idle"):
            clock.advance(90.5)
            manager.fire("a", trigger)
            row.fire(trigger)
        state = dumps(manager.get("a").state)
        ours = rows(
            database,
            "SELECT session_id, revision, body, digest FROM session_fsm.session_event"
            " WHERE revision > 2 ORDER BY revision",
        )
    floor.close()
    assert rows(database, "SELECT * FROM floor.event ORDER BY revision") == ours
    assert len(ours) == 3
    assert rows(database, "SELECT * FROM floor.session") == [("a", 5, "idle", state)]


@pytest.mark.parametrize("kind", [PostgresFloor, PostgresFloorAtOnce])
def test_benchmarks_floor_refuses_a_lost_race_at_a_server(
    kind: type[PostgresFloor], database: str
) -> None:
    """The floor too writes on condition of the revision, and leaves nothing of what it lost."""
    floor = kind(database, 1)
    move = floor.mover("a")
    move()
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE floor.session SET revision = 7")
    with pytest.raises(RuntimeError, match="not at revision 3"):
        move()
    floor.close()
    assert rows(database, "SELECT revision FROM floor.event") == [(3,)]
    assert rows(database, "SELECT revision FROM floor.session") == [(7,)]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (PostgresOurs, "on, on, on"),
        (PostgresFloor, "on, on, on"),
        (PostgresFloorAtOnce, "on, on, on"),
        (PostgresFloorUnsynced, "on, off, on"),
    ],
)
def test_benchmarks_subject_reads_back_its_durability_at_a_server(
    kind: postgres_processes.Kind, told: str, database: str
) -> None:
    """What is told is what the subject's own connections report, and its moves are stored."""
    subject: Any = kind(database, 2)
    try:
        assert subject.settings == told
        move = subject.mover("a")
        move()
        move()
        assert subject.settings == told
    finally:
        subject.close()
    table = "session_fsm.session_event" if kind is PostgresOurs else "floor.event"
    assert rows(database, f"SELECT max(revision) FROM {table}") == [(4,)]


def test_benchmarks_langgraph_is_told_of_what_a_step_changed() -> None:
    """The first checkpoint has all channels, and each later one new versions of three of them."""
    made = count()

    def version_after(before: int | None, _: object) -> int:
        return (before or 0) + 1

    checkpoints = Checkpoints("a", version_after, lambda: {"id": str(next(made))})
    place, first, _, new = checkpoints.next()
    assert place == {"configurable": {"thread_id": "a", "checkpoint_ns": ""}}
    assert new == first["channel_versions"] == dict.fromkeys(first["channel_values"], 1)
    _, second, metadata, new = checkpoints.next()
    assert new == {"status": 2, "status_since": 2, "updated_at": 2}
    assert second["channel_versions"] == first["channel_versions"] | new
    assert (first["channel_values"]["status"], second["channel_values"]["status"]) == (
        "idle",
        "active",
    )
    assert (first["id"], second["id"], metadata["step"]) == ("0", "1", 2)


# --- processes ---------------------------------------------------------------------------------


class Absent(PostgresFloor):
    """A subject that can't be made."""

    name = "absent"

    def __init__(self, url: str, callers: int) -> None:
        raise ModuleNotFoundError("No module named 'absent'")


def test_benchmarks_processes_move_together(database: str) -> None:
    """Each process has its part of the callers, and every move that counts is stored."""
    kinds = (PostgresOurs, PostgresOursAwaited, PostgresFloorAtOnce, Absent)
    shape = Shape(2, 4)
    found = postgres_processes.measure(kinds, database, shape, rounds=1, seconds=0.05)
    assert list(found.records) == [kind.name for kind in kinds[:3]]
    assert found.missing == {"absent": "ModuleNotFoundError: No module named 'absent'"}
    assert set(found.settings.values()) == {"on, on, on"}
    for kind, table in (
        (PostgresOurs, "session_fsm.session_event"),
        (PostgresOursAwaited, "session_fsm.session_event"),
        (PostgresFloorAtOnce, "floor.event"),
    ):
        [(sessions, events)] = rows(
            database,
            "SELECT count(DISTINCT session_id), count(*) FILTER (WHERE revision > 2)"
            f" FROM {table} WHERE session_id LIKE '{kind.__name__}-%'",
        )
        [turn] = found.records[kind.name].turns
        assert sessions == 4
        assert 0 < turn.moves == len(turn.latencies) < events  # the first turn does not count
        assert turn.failures == 0
    ratio = found.ratio(PostgresOurs.name, PostgresFloorAtOnce.name)
    assert ratio is not None
    assert ratio > 0
    assert found.ratio(PostgresOurs.name, "absent") is None


def test_benchmarks_add_up_what_processes_did_together() -> None:
    """The moves are those of all of them, in the time of the one that took longest."""
    turn = postgres_processes.added([Turn(2, 1.0, [0.5, 0.5], 1), Turn(3, 1.5, [0.5] * 3)])
    assert turn == Turn(5, 1.5, [0.5] * 5, 1)


def test_benchmarks_hold_one_caller_to_the_floor_and_many_to_the_peers() -> None:
    """What is in between is told, and held to nothing; a peer that is missing reaches nothing."""
    records = {
        PostgresOurs.name: Record([Turn(6, 1.0)]),
        PostgresOursAwaited.name: Record([Turn(4, 1.0)]),
        PostgresFloor.name: Record([Turn(10, 1.0)]),
        PostgresFloorAtOnce.name: Record([Turn(12, 1.0)]),
        PostgresLangGraph.name: Record([Turn(1, 1.0)]),
    }
    found = [
        Together(shape, records, {}, dict.fromkeys(postgres.PEERS, "ImportError"))
        for shape in (Shape(1, 1), Shape(1, 8), Shape(4, 64))
    ]
    told = {each.subject: each for each in postgres.verdicts(found)}
    missing = "not measured: ImportError"
    assert {name: each.told for name, each in told.items()} == {
        "1 caller, 1 process, of the floor's rate": "reached",
        "1 caller, 1 process, of the rate of the floor in one statement": "MISSED",
        "64 callers, 4 processes, threads, of the rate of langgraph: PostgresSaver.put": "reached",
        "64 callers, 4 processes, tasks, of the rate of langgraph: PostgresSaver.put": "MISSED",
        **{
            f"64 callers, 4 processes, {callers}, of the rate of {name}": missing
            for callers in ("threads", "tasks")
            for name in postgres.PEERS[1:]
        },
    }


# --- many sessions -----------------------------------------------------------------------------


def test_benchmarks_databases_are_filled_once(server: str) -> None:
    """A database has as many sessions as its size, agrees with its history, and is used again.

    One that was filled by a library with other tables is removed.
    """
    postgres_server.database(server, "filled_40_01234567")
    names = postgres_scale.filled(server, (40, 60))
    assert [name.rpartition("_")[0] for name in names.values()] == ["filled_40", "filled_60"]
    for size, name in names.items():
        url = postgres_server.of_database(server, name)
        with SessionManager(url) as manager:
            counts = manager.counts()
            assert (counts["active"], counts["idle"]) == (size * 3 // 4, size // 4)
            assert manager.verify().ok
            events = manager.store.feed(0, 1000).events
            assert [each.position for each in events] == list(range(1, size * 9 // 4 + 1))
            manager.fire(scale_stores.id_of(1), "go_idle")
            [after] = manager.store.feed(len(events), 1000).events
            assert after.position == len(events) + 1
            manager.fire(scale_stores.id_of(1), "resume")
    query = "SELECT datname, oid FROM pg_database WHERE datname LIKE 'fill%' ORDER BY datname"
    made = rows(server, query)
    assert [name for name, _ in made] == list(names.values())
    assert postgres_scale.filled(server, (40, 60)) == names
    assert rows(server, query) == made


def test_benchmarks_refuse_a_database_that_is_not_whole(server: str) -> None:
    """A database with which `verify` finds something wrong is not measured."""
    [name] = postgres_scale.filled(server, (10,)).values()
    url = postgres_server.database(server, "spoilt", template=name)
    postgres_scale.check_whole(url)
    with psycopg.connect(url) as connection:
        connection.execute("DROP TRIGGER session_rules ON session_fsm.session")
    with pytest.raises(ValueError, match=r"what was filled in is not whole: .*session_rules"):
        postgres_scale.check_whole(url)


def test_benchmarks_scale_verbs_work_at_a_server(server: str) -> None:
    """Each verb works turn after turn on a copy, and what was filled stays as it was."""
    [name] = postgres_scale.filled(server, (100,)).values()
    filled = postgres_server.of_database(server, name)
    before = rows(filled, "SELECT session_id, digest FROM session_fsm.session ORDER BY 1")
    url = postgres_server.database(server, "working", template=name)
    postgres_scale.warm_up(url)
    store = Store(url, 100, moves=40)
    for _ in range(2):
        turns = {verb: turn() for verb, turn in store.verbs().items()}
        assert [verb for verb, turn in turns.items() if not turn.moves or turn.seconds <= 0] == []
    store.close()
    with SessionManager(url) as manager:
        assert sum(manager.counts().values()) == 100
        assert manager.verify().ok
    assert rows(filled, "SELECT session_id, digest FROM session_fsm.session ORDER BY 1") == before


# --- all of it ---------------------------------------------------------------------------------


def test_benchmarks_at_a_server_run_through(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command measures everything, and says what it could not measure; nothing is left over."""
    output = tmp_path / "figures.md"
    flags = ["--quick", "--directory", str(place), "--output", str(output)]
    flags += ["--rounds", "1", "--rounds-of-many", "1", "--shapes", "1x1", "2x4"]
    flags += ["--promises", "legal moves"]
    flags += [
        "--only",
        "session_fsm",
        "floor: bare psycopg, one",
        "langgraph: PostgresSaver",
        "--sizes",
    ]
    assert postgres.main(flags, fsync=lambda _: 50e-6) == 0
    told = capsys.readouterr().out
    assert output.read_text(encoding="utf-8") == told
    assert "where an fsync of 4 KiB takes 50 µs" in told
    assert told.count("| session_fsm  ") == 2
    assert told.count("| session_fsm, awaited ") == 2
    assert "| without legal moves and final statuses, held by the database |" in told
    assert "- Not measured: langgraph: PostgresSaver.put (ModuleNotFoundError" in told
    assert "**Not measured:** 1 caller, 1 process, of the floor's rate" in told


def test_benchmarks_postgres_tell_what_is_taken(server: str) -> None:
    """Of sessions and of events it is told how many there are, and what each takes on disk."""
    [name] = postgres_scale.filled(server, (100,)).values()
    growth = postgres_scale.Growth(
        records={"get": {100: Record([Turn(10, 0.1)])}},
        rooms=postgres_scale.rooms_of(postgres_server.of_database(server, name)),
    )
    session, event = growth.rooms
    assert (session.table, session.rows) == ("session", 100)
    assert event.table == "session_event"
    assert all(
        room.rows >= 100 and room.row_bytes > 100 < room.index_bytes for room in growth.rooms
    )
    told = "\n".join(postgres_scale.lines(growth, 2))
    assert f"| `session_event` | {event.rows} |" in told
