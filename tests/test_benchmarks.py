"""The benchmarks: what they refuse, what they hold figures to, and that the floor does the same."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from managing import START

from benchmarks import bench, callers, durable, floor, measuring
from benchmarks.measuring import NotDurableError, Record, Turn
from benchmarks.subjects import Blocking, Floor, Ours
from benchmarks.targets import Verdict, verdict_lines
from session_fsm import SessionManager, dumps, serialize
from session_fsm.clock import ManualClock

# --- the directory -----------------------------------------------------------------------------


def test_benchmarks_refuse_a_fast_file_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where an fsync takes under 50 µs nothing is measured, one line says why, the code is 3."""
    output = tmp_path / "figures.md"
    arguments = ["--quick", "--directory", str(tmp_path), "--output", str(output)]
    assert bench.main(arguments, fsync=lambda _: 49e-6) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "an fsync takes 49.0 µs" in told.err
    assert "nothing durable can be measured" in told.err
    assert not output.exists()


def test_benchmarks_take_a_slow_file_system(tmp_path: Path) -> None:
    """From 50 µs on the measured cost is what counts."""
    assert measuring.durable_fsync_seconds(tmp_path, lambda _: 50e-6) == 50e-6


@pytest.mark.skipif(
    measuring.file_system_of(Path("/dev/shm")) != "tmpfs", reason="no file system in memory"
)
def test_benchmarks_refuse_a_file_system_in_memory() -> None:
    """What is measured on a file system in memory is refused, and its type is told."""
    with pytest.raises(NotDurableError, match="tmpfs") as refused:
        measuring.durable_fsync_seconds(Path("/dev/shm"))
    assert 0 < refused.value.seconds < measuring.LEAST_FSYNC_SECONDS


# --- figures and verdicts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sense", "found", "told"),
    [
        ("at least", 0.7, "reached"),
        ("at least", 0.6999, "MISSED"),
        ("at most", 0.7, "reached"),
        ("at most", 0.7001, "MISSED"),
    ],
)
def test_benchmarks_verdict_by_the_bound(sense: str, found: float, told: str) -> None:
    """A figure on its bound has reached the target; one beyond it on the wrong side has not."""
    verdict = Verdict("rate", found, 0.7, sense)  # type: ignore[arg-type]
    assert verdict.told == told
    assert verdict.reached == (told == "reached")


def test_benchmarks_verdict_of_what_was_not_measured() -> None:
    """A peer that is missing reaches no target, and the table says why."""
    missing = Verdict("beside a peer", None, 10, why_not="ModuleNotFoundError: peer")
    assert not missing.reached
    lines = list(verdict_lines([missing, Verdict("alone", 0.5, 0.7), Verdict("fast", 9, 5)]))
    assert "not measured: ModuleNotFoundError: peer" in "\n".join(lines)
    assert lines[-2:] == ["**Missed, 1 of 3:** alone.", "**Not measured:** beside a peer."]


def test_benchmarks_ratio_is_the_median_of_the_rounds() -> None:
    """A round in which the machine was slow for both changes no ratio."""
    mine = Record([Turn(20, 1.0), Turn(2, 1.0), Turn(30, 1.0)])
    theirs = Record([Turn(10, 1.0), Turn(1, 1.0), Turn(10, 1.0)])
    assert mine.ratio_to(theirs) == 2
    assert theirs.ratio_to(mine) == 0.5
    assert mine.rate == 20


def test_benchmarks_p95_is_one_of_the_values() -> None:
    """Of a hundred values it is the 95th; of none it is 0."""
    assert measuring.percentile(range(1, 101), 0.95) == 95
    assert measuring.percentile([7.0], 0.95) == 7
    assert measuring.percentile([], 0.95) == 0


# --- subjects ----------------------------------------------------------------------------------


def test_benchmarks_floor_stores_the_bytes_of_ours(tmp_path: Path) -> None:
    """For the same moves at the same instants the floor has our states, events and digests."""
    clock = ManualClock(START)
    with SessionManager(f"sqlite:///{tmp_path / 'ours.db'}", clock=clock) as manager:
        created = manager.create("a", metadata={"user": "ada"})
        last = manager.history("a")[-1]
        connection = floor.connect(tmp_path / "floor.db")
        row = floor.Row(
            connection,
            serialize(created.state),
            revision=last.revision,
            digest=last.digest,
            now=clock.now,
        )
        for trigger in ("go_idle", "resume", "go_idle"):
            clock.advance(90.5)
            manager.fire("a", trigger)
            row.fire(trigger)
        ours = [(body, event.digest) for body, event in manager.store.history("a")][2:]
        assert connection.execute("SELECT body, digest FROM event").fetchall() == ours
        assert len(ours) == 3
        [stored] = connection.execute("SELECT revision, status, state FROM session").fetchall()
        assert stored == (5, "idle", dumps(manager.get("a").state).decode())
        assert manager.verify().ok
    connection.close()


def test_benchmarks_floor_refuses_a_lost_race(tmp_path: Path) -> None:
    """The floor too writes on condition of the revision, and leaves nothing of what it lost."""
    with SessionManager() as manager:
        state = serialize(manager.create("a").state)
    connection = floor.connect(tmp_path / "floor.db")
    row = floor.Row(connection, state, revision=2, digest="")
    connection.execute("UPDATE session SET revision = 3")
    with pytest.raises(RuntimeError, match="not at revision 2"):
        row.fire("go_idle")
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM event").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("kind", [Ours, Floor])
def test_benchmarks_subject_reads_back_its_durability(kind: type[Blocking], tmp_path: Path) -> None:
    """Ours and the floor are measured in the same mode, as SQLite itself reports it."""
    subject = kind(tmp_path)  # type: ignore[call-arg]
    try:
        assert subject.settings == "WAL, FULL"
        move = subject.mover("a")
        move()
        move()
    finally:
        subject.close()


def test_benchmarks_floor_really_is_durable(tmp_path: Path) -> None:
    """The settings that are told are those of the connection, not a text."""
    connection = floor.connect(tmp_path / "floor.db", synchronous="NORMAL")
    assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    connection.close()


def test_benchmarks_go_on_without_a_peer(tmp_path: Path) -> None:
    """A subject that can't be made is left out, with the reason; the others are measured."""

    class Absent(Floor):
        name = "absent"

        def __init__(self, directory: Path) -> None:
            raise ModuleNotFoundError("No module named 'absent'")

    found = durable.measure(
        tmp_path, callers=1, rounds=1, seconds=0.001, subjects=(Ours, Floor, Absent)
    )
    assert list(found.records) == [Ours.name, Floor.name]
    assert found.missing == {"absent": "ModuleNotFoundError: No module named 'absent'"}
    assert found.ratio("absent") is None
    assert "- Not measured: absent (Module" in "\n".join(durable.lines(found))


def test_benchmarks_many_callers_move_their_own_sessions(tmp_path: Path) -> None:
    """Each caller has a thread and a session of its own, and every move that counts is stored."""
    subject = Floor(tmp_path)
    seen: set[int] = set()
    moves = [subject.mover(f"s{number}") for number in range(4)]

    def noting(move: callers.Move) -> callers.Move:
        def noted() -> None:
            seen.add(threading.get_ident())
            move()

        return noted

    threads = callers.Threads([noting(move) for move in moves])
    turn = threads.turn(0.05)
    threads.close()
    subject.close()
    connection = sqlite3.connect(tmp_path / "floor.db")
    [(events, sessions)] = connection.execute(
        "SELECT count(*), count(DISTINCT session_id) FROM event"
    ).fetchall()
    connection.close()
    assert turn.moves == len(turn.latencies) == events
    assert (sessions, len(seen), turn.failures) == (4, 4, 0)


def test_benchmarks_count_what_failed() -> None:
    """A move that raises is no move, and is told."""

    def fail() -> None:
        raise RuntimeError("the database is locked")

    turn = callers.alone(fail, 5.0)
    assert (turn.moves, turn.failures) == (0, callers.MOST_FAILURES_IN_A_TURN)
