"""A replay that is stopped at any moment goes on from where it was, to the same end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from replaying import (
    SAMPLE,
    StopError,
    Unbroken,
    events_of,
    has_schema,
    log_of,
    position_in,
    prints_in,
    row,
    stop_at,
    unbroken_run,
    unbroken_trace,
    url_of,
)

from session_fsm import SessionManager
from session_fsm.replay import Log, Report, replay
from session_fsm.stores import MemoryStore, SessionStore, SqliteStore, open_store
from session_fsm.stores.records import Commit

CHILD = Path(__file__).with_name("replay_process.py")
PATIENCE_SECONDS = 60.0
"""How long a test waits for a process; only a deadlock takes that long."""

TRACE = os.environ.get("SESSION_FSM_TRACE")
# A chance where to kill: (trace, rows in a batch, how often, seed).
CHAINS: dict[str, tuple[Path, int, int, int]] = {
    "sample, batches of 1": (SAMPLE, 1, 3, 1),
    "sample, batches of 20": (SAMPLE, 20, 6, 2),
    "sample, batches of 300": (SAMPLE, 300, 4, 3),
}
if TRACE:
    CHAINS["shared, batches of 1000"] = (Path(TRACE), 1000, 2, 4)


class Child:
    """A replay in a process of its own; see `replay_process`.

    Args:
        trace: What it reads.
        file: The SQLite file that it replays into.
        rows_per_batch: How many rows share a transaction.
        after: The position from which on its statements are watched; -1: from the first one.
        statement: The statement before which it stands still, by number or as a word; 0: none.
    """

    def __init__(
        self,
        trace: Path,
        file: Path,
        rows_per_batch: int,
        after: int = -1,
        statement: int | str = 0,
    ) -> None:
        numbers = (str(number) for number in (rows_per_batch, after, statement))
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", CHILD, trace, file, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def said(self) -> Iterator[str]:
        """What it says, until it ends or the test has heard enough."""
        assert self._process.stdout is not None
        patience = threading.Timer(PATIENCE_SECONDS, self._process.kill)
        patience.start()
        try:
            for line in self._process.stdout:
                yield line.strip()
        finally:
            patience.cancel()

    def runs_until(self, awaited: str) -> bool:
        """Wait until it says something; False if it was done before that."""
        for line in self.said():
            if line == awaited:
                return True
            if line == "done":
                return False
        pytest.fail(f"the process ended before it said {awaited!r}")

    def runs_past(self, position: int) -> None:
        """Wait until it has come to a position, or is done."""
        for line in self.said():
            if line == "done" or (line.startswith("at ") and int(line[3:]) >= position):
                return
        pytest.fail(f"the process ended before position {position}")

    def kill(self) -> None:
        """End it without any chance to tidy up."""
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait(PATIENCE_SECONDS) in (-signal.SIGKILL, 0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


def go_on(whole: Unbroken, file: Path) -> Report:
    """Replay the rest in this process."""
    store = open_store(url_of(file))
    try:
        return replay(whole.log, store)
    finally:
        store.close()


def assert_came_to_the_same_end(whole: Unbroken, file: Path) -> None:
    """Finish a replay that was killed: it is the unbroken one, and nothing is left behind."""
    whole.assert_prefix(prints_in(file), position_in(file))
    report = go_on(whole, file)
    whole.assert_whole(prints_in(file), report)
    assert position_in(file) == len(whole.log.rows)
    with SessionManager(url_of(file)) as manager:
        assert manager.verify().problems == ()


# --- killed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("trace", "rows_per_batch", "kills", "seed"), CHAINS.values(), ids=CHAINS)
def test_killed_again_and_again_comes_to_the_same_end(
    tmp_path: Path, trace: Path, rows_per_batch: int, kills: int, seed: int
) -> None:
    """Killed while it runs, several times in a row, a replay loses nothing and repeats nothing.

    After each death exactly the events up to the stored position are there.
    """
    whole, file = unbroken_trace(trace), tmp_path / "s.db"
    chance = random.Random(seed)
    total = len(whole.log.rows)
    reached = []
    for kill in range(kills):
        goal = round(total * (kill + chance.random()) / (kills + 1))
        child = Child(trace, file, rows_per_batch)
        child.runs_past(goal)
        child.kill()
        position = position_in(file)
        whole.assert_prefix(prints_in(file), position)
        assert position is not None
        assert position >= goal
        reached.append(position)
    assert reached == sorted(reached)
    assert_came_to_the_same_end(whole, file)


@pytest.mark.parametrize("seed", range(4))
def test_killed_before_any_statement_comes_to_the_same_end(tmp_path: Path, seed: int) -> None:
    """Killed with a transaction half written, before a statement chosen by lot, it is undone whole.

    The positions and the events are those of the batch before.
    """
    whole, file = unbroken_trace(SAMPLE), tmp_path / "s.db"
    chance = random.Random(seed)
    batch = 50
    for _ in range(3):
        before = position_in(file) or 0
        after = before + batch * chance.randrange(1, 12)
        child = Child(SAMPLE, file, batch, after, chance.randrange(1, 900))
        child.runs_until("halted")
        child.kill()
        position, total = position_in(file), len(whole.log.rows)
        assert position is not None
        assert position >= min(after, total)
        assert position % batch == 0 or position == total
        whole.assert_prefix(prints_in(file), position)
    assert_came_to_the_same_end(whole, file)


@pytest.mark.parametrize(("statement", "batches"), [("commit", 2), ("committed", 3)])
def test_killed_on_either_side_of_a_commit_comes_to_the_same_end(
    tmp_path: Path, statement: str, batches: int
) -> None:
    """Rows and position become durable at one moment: before it neither is, after it both are."""
    whole, file = unbroken_trace(SAMPLE), tmp_path / "s.db"
    child = Child(SAMPLE, file, 50, 100, statement)
    assert child.runs_until("halted")
    child.kill()
    assert position_in(file) == 50 * batches
    assert_came_to_the_same_end(whole, file)


@pytest.mark.parametrize("statement", [1, 2, 3, 4, 5, 9, 14, 20, 27, 35, 45, 60, 90])
def test_killed_while_the_file_is_made_comes_to_the_same_end(
    tmp_path: Path, statement: int
) -> None:
    """Killed while the schema is made or the first rows are replayed, a file is as good as new."""
    whole, file = unbroken_trace(SAMPLE), tmp_path / "s.db"
    child = Child(SAMPLE, file, 1000, -1, statement)
    assert child.runs_until("halted")
    child.kill()
    assert position_in(file) is None
    assert prints_in(file) == []
    assert_came_to_the_same_end(whole, file)


def test_killed_statements_reach_from_no_schema_to_the_first_batch(tmp_path: Path) -> None:
    """The deaths above fall on both sides of the moment at which the schema is there."""
    found = set()
    for statement in (1, 90):
        file = tmp_path / f"{statement}.db"
        child = Child(SAMPLE, file, 1000, -1, statement)
        assert child.runs_until("halted")
        child.kill()
        found.add(has_schema(file))
    assert found == {False, True}


def test_killed_after_the_last_row_has_only_the_report_left(tmp_path: Path) -> None:
    """Killed while it verifies, a replay has nothing left to write."""
    whole, file = unbroken_trace(SAMPLE), tmp_path / "s.db"
    total = len(whole.log.rows)
    child = Child(SAMPLE, file, 1000, total, 100)
    assert child.runs_until("halted")
    child.kill()
    assert position_in(file) == total
    whole.assert_whole(prints_in(file), whole.report)
    assert_came_to_the_same_end(whole, file)


# --- interrupted ----------------------------------------------------------------------------


@pytest.fixture
def interrupts() -> Iterator[None]:
    """The signal of an interrupt raises `KeyboardInterrupt`, however the tests were started."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupting:
    """Mixed into a store: sends an interrupt after some commits."""

    left = 0

    def count_down(self) -> None:
        """Note a commit."""
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


class InterruptingMemory(Interrupting, MemoryStore):
    """The store in memory, with interrupts."""

    def commit(self, commit: Commit) -> None:
        super().commit(commit)
        self.count_down()


class InterruptingSqlite(Interrupting, SqliteStore):
    """The embedded store, with interrupts."""

    def commit(self, commit: Commit) -> None:
        super().commit(commit)
        self.count_down()


@pytest.fixture(params=["memory", "sqlite"])
def interrupting(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[InterruptingMemory | InterruptingSqlite]:
    """An empty store that interrupts, once of each kind."""
    memory = request.param == "memory"
    store = InterruptingMemory() if memory else InterruptingSqlite(tmp_path / "s.db")
    yield store
    store.close()


def small_log() -> Log:
    """A log with refusals, findings, trailing rows, expiries, and turns that go quiet.

    One id has so many lives that their order by id is not the order in which they were made.
    """
    comes_and_goes = [
        row(5000 + 10.0 * life + delay, event, "e")
        for life in range(12)
        for delay, event in ((0, "request"), (1, "exit"))
    ]
    return log_of(
        *comes_and_goes[:-1],
        *(row(float(n), "request", "many") for n in range(101)),
        row(0, "request"),
        row(3, "interrupt"),
        row(10, "request"),
        row(50, "exit"),
        row(51, "meta"),
        row(52, "request"),
        row(53, "meta", "b"),
        row(60, "response", "c"),
        row(300, "exit", "many"),
        row(301, "interrupt", "many"),
        row(302, "request", "many"),
        row(2000, "request"),
        row(2001, "request", "c"),
        row(2002, "request", "a~2"),
        row(2100, "exit", "c"),
        row(4000, "meta", "d"),
        row(4000, "request", "d"),
    )


def prints_of(store: SessionStore) -> set[tuple[str, int, str]]:
    """Every event that a store holds."""
    return {
        (event.session_id, event.revision, event.digest)
        for events in events_of(store).values()
        for event in events
    }


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("commits", [1, 2, 3, 7, 20, 61])
def test_killed_by_an_interrupt_in_the_middle_of_a_batch_comes_to_the_same_end(
    interrupting: InterruptingMemory | InterruptingSqlite, commits: int
) -> None:
    """An interrupt from the keyboard undoes the batch that it falls into, and no other one."""
    log = small_log()
    whole = unbroken_run(log)
    broken, report = 0, None
    while report is None:
        # A batch that is interrupted is undone, so each try has to come further than the last.
        interrupting.left = commits + broken
        try:
            report = replay(log, interrupting, rows_per_batch=10)
        except KeyboardInterrupt:
            broken += 1
            mark = interrupting.mark("replay")
            position = None if mark is None else position_of(mark)
            written = whole.store.prints[: whole.store.written[position]]
            assert prints_of(interrupting) == set(written)
    assert broken > 1
    assert report == whole.report
    assert events_of(interrupting) == events_of(whole.store)
    assert replay(log, interrupting) == whole.report


def position_of(mark: bytes) -> int:
    """The position in what a replay keeps in its store."""
    position = json.loads(mark)["position"]
    assert isinstance(position, int)
    return position


# The many prompts at the beginning are much alike: there, fewer places will do.
@pytest.mark.parametrize(("first", "rows_per_batch"), [(100, 1), (1, 7)])
def test_killed_between_any_two_batches_comes_to_the_same_end(
    first: int, rows_per_batch: int
) -> None:
    """Wherever a replay is left between two batches, the rest leads to the same report."""
    log = small_log()
    whole = unbroken_run(log)
    assert whole.report.refusals
    assert whole.report.findings.keys() == {"begin_after_exit", "begin_after_expiry"}
    assert whole.report.trailing_rows
    for position in range(first, len(log.rows) + 1, rows_per_batch):
        store = MemoryStore()
        with pytest.raises(StopError):
            replay(log, store, rows_per_batch=rows_per_batch, on_progress=stop_at(position))
        assert replay(log, store) == whole.report
        assert events_of(store) == events_of(whole.store)


def test_killed_after_every_batch_comes_to_the_same_end(tmp_path: Path) -> None:
    """A replay whose every run does one batch gets there all the same."""
    log = small_log()
    whole, file = unbroken_run(log), tmp_path / "s.db"
    for _ in range(0, len(log.rows), 7):
        store = open_store(url_of(file))
        with pytest.raises(StopError):
            replay(log, store, rows_per_batch=7, on_progress=stop_at(0))
        store.close()
        whole.assert_prefix(prints_in(file), position_in(file))
    assert position_in(file) == len(log.rows)
    report = go_on(whole, file)
    whole.assert_whole(prints_in(file), report)
