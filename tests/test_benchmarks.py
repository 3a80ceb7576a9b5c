"""The benchmarks: what they refuse, what they hold figures to, and that the floor does the same."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from managing import START

from benchmarks import (
    bench,
    callers,
    durable,
    encryption,
    floor,
    measuring,
    move_parts,
    move_profile,
    scale,
    scale_memory,
    scale_stores,
    scale_verbs,
    supervised,
)
from benchmarks.measuring import NotDurableError, Record, Turn
from benchmarks.subjects import Blocking, Floor, Ours, OursAwaited, there_and_back
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


def test_benchmarks_compare_an_encrypted_store_with_a_plain_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each verb is measured on both stores, and only one of them is encrypted."""
    with contextlib.ExitStack() as held:
        subjects = dict(encryption.subjects(held, tmp_path, {"text": "marked"}))
        for act in subjects.values():
            act()
    verbs = ("move", "update", "get")
    assert set(subjects) == {f"{verb} {name}" for verb in verbs for name in ("plain", "encrypted")}
    marked = {each.name for each in tmp_path.glob("*.db") if b"marked" in each.read_bytes()}
    assert marked == {"plain.db"}
    assert encryption.main(["--quick", "--directory", str(tmp_path / "made")]) == 0
    assert capsys.readouterr().out.count("| get ") == 2


def test_benchmarks_have_all_supervised_sessions_live_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each subject is measured in a process of its own, and tells what each session costs."""
    for subject in supervised.SUBJECTS:
        found = supervised.measure(subject, 120, tmp_path)
        assert found.keys() == {"start", "bytes", "end"}
        assert found["start"] > 0
    flags = ["--sessions", "20", "--rounds", "1", "--directory", str(tmp_path / "made")]
    assert supervised.main(flags) == 0
    assert capsys.readouterr().out.count(" µs ") == 2 * len(supervised.SUBJECTS)


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


def test_benchmarks_subjects_take_turns() -> None:
    """Each has one turn in a round, the first of which counts for none, there and back again."""
    called = ""

    def turn_of(name: str) -> Callable[[], Turn]:
        def turn() -> Turn:
            nonlocal called
            called += name
            return Turn(len(called), 1.0)

        return turn

    records = measuring.in_turns({name: turn_of(name) for name in "abc"}, 3)
    assert called == "abcabccbaabc"
    assert {name: [turn.moves for turn in record.turns] for name, record in records.items()} == {
        "a": [4, 9, 10],
        "b": [5, 8, 11],
        "c": [6, 7, 12],
    }


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
        tmp_path, callers=1, rounds=1, seconds=0.001, subjects=(Ours, OursAwaited, Floor, Absent)
    )
    assert list(found.records) == [Ours.name, OursAwaited.name, Floor.name]
    assert found.settings[OursAwaited.name] == "WAL, FULL"
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


# --- the parts of a move -----------------------------------------------------------------------


def test_benchmarks_see_each_statement_of_a_move(tmp_path: Path) -> None:
    """The statements of a move in SQLite are counted, the commit among them, and timed."""
    with contextlib.ExitStack() as held:

        def opened() -> callers.Move:
            manager = held.enter_context(SessionManager(f"sqlite:///{tmp_path / 'a.db'}"))
            manager.create("a")
            return there_and_back(manager, "a")

        spent = {each.name: each for each in move_profile.statements(opened, 10)}
    assert spent["COMMIT"].calls == 1
    assert spent["COMMIT"].seconds > 0
    assert sum(each.calls for name, each in spent.items() if name.startswith("INSERT")) >= 1


def test_benchmarks_refuse_a_move_without_statements() -> None:
    """Where no statement is seen, that is an error, not an empty table."""
    with SessionManager() as manager:
        manager.create("a")
        with pytest.raises(RuntimeError, match="no statement was seen"):
            move_profile.statements(lambda: there_and_back(manager, "a"), 2)


def test_benchmarks_parts_add_up_to_the_whole() -> None:
    """What is left of the whole beside the sum of the parts is told, and may be less than none."""
    parts = {"one": 3e-6, "two": 4e-6, move_parts.WHOLE: 10e-6}
    rows = {name: (each, share) for name, each, share in move_parts.rows(parts)}
    assert rows["sum of the parts"] == ("7.0 µs", "70%")
    assert rows["bookkeeping: what is left"] == ("3.0 µs", "30%")
    assert rows[move_parts.WHOLE] == ("10.0 µs", "100%")


# --- many sessions -----------------------------------------------------------------------------


def test_benchmarks_stores_are_filled_once(tmp_path: Path) -> None:
    """A store has as many sessions as its size, agrees with its history, and is used again.

    One that was filled by a library with other tables is removed.
    """
    old = tmp_path / "40-01234567.db"
    old.touch()
    paths = scale_stores.filled(tmp_path, (40, 60))
    assert not old.exists()
    assert [path.name.partition("-")[0] for path in paths.values()] == ["40", "60"]
    for size, path in paths.items():
        with SessionManager(f"sqlite:///{path}") as manager:
            counts = manager.counts()
            assert (counts["active"], counts["idle"]) == (size * 3 // 4, size // 4)
            assert manager.verify().ok
    written = {path: path.stat().st_mtime_ns for path in paths.values()}
    assert scale_stores.filled(tmp_path, (60, 40)) == paths
    assert {path: path.stat().st_mtime_ns for path in paths.values()} == written


def test_benchmarks_refuse_a_store_that_is_not_whole(tmp_path: Path) -> None:
    """A store with which `verify` finds something wrong is not measured."""
    [path] = scale_stores.filled(tmp_path, (10,)).values()
    scale_stores.check_whole(path)
    connection = sqlite3.connect(path)
    query = "SELECT min(name) FROM sqlite_schema WHERE type = 'trigger'"
    connection.execute(f"DROP TRIGGER {connection.execute(query).fetchone()[0]}")
    connection.commit()
    connection.close()
    with pytest.raises(ValueError, match=f"{path.name}: "):
        scale_stores.check_whole(path)


def test_benchmarks_scale_verbs_do_what_they_time(tmp_path: Path) -> None:
    """Each verb works turn after turn; sessions planted for the sweep leave no trace in counts."""
    [path] = scale_stores.filled(tmp_path, (100,)).values()
    store = scale_verbs.Store(
        scale_stores.url_of(path),
        100,
        moves=40,
        warm=partial(scale_verbs.read_through, path),
    )
    for _ in range(2):
        turns = {verb: turn() for verb, turn in store.verbs().items()}
        assert [verb for verb, turn in turns.items() if not turn.moves or turn.seconds <= 0] == []
    store.close()
    with SessionManager(f"sqlite:///{path}") as manager:
        assert sum(manager.counts().values()) == 100
        rested = {scale_stores.id_of(number) for number in range(100) if number % 4 == 0}
        resting = {session.session_id for session in manager.list(status="idle")}
        assert len(rested ^ resting) == 40
        assert manager.verify().ok


def test_benchmarks_growth_is_relative_to_the_smallest() -> None:
    """A call that takes twice as long with more stored has grown by 2, and misses its target."""
    records = {1_000: Record([Turn(10, 1.0)]), 100_000: Record([Turn(5, 1.0)])}
    assert scale.growth(records) == {1_000: 1, 100_000: 2}
    by_verb = {"get": records, "open": {1_000: records[1_000], 100_000: records[1_000]}}
    missed = [each.subject for each in scale.verdicts(by_verb, None, 1025) if not each.reached]
    assert missed == [
        "get, with 100,000 stored, of its cost with 1,000",
        "machines kept after 2,000 stored sessions were used",
        "live sessions in memory",
    ]


def test_benchmarks_weigh_live_sessions_elsewhere() -> None:
    """A process of its own tells what its sessions take, and how many machines it keeps."""
    living = scale_memory.live_elsewhere(1500)
    assert (living.sessions, living.machines) == (1500, scale_memory.MOST_MACHINES)
    assert living.grown_bytes > 1500 * 500
