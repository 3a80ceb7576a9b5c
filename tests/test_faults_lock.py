"""A writer of another process that holds the file: waited for, then told of; readers go on."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from faulty import PREAMBLE, Ledger, count_of
from managing import begin, end
from processes import Program

from session_fsm import SessionManager, StoreUnavailableError
from session_fsm.stores import SqliteStore

HOLDING = (
    PREAMBLE
    + """
with plain(Path(sys.argv[1])) as connection:
    connection.execute("BEGIN " + sys.argv[2])
    if sys.argv[3] == "writing":
        connection.execute("INSERT INTO mark VALUES ('theirs', x'01')")
    print("held", flush=True)
    connection.execute(input())
    print("let go", flush=True)
"""
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """A store that waits a tenth of a second for other writers."""
    with closing(SqliteStore(path, busy_timeout_seconds=0.1)) as store:
        yield store


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
@pytest.mark.parametrize("end_of_it", ["COMMIT", "ROLLBACK", "death"])
def test_faults_lock_held_too_long(
    store: SqliteStore, path: Path, kind: str, end_of_it: str
) -> None:
    """Each verb that writes says that the file is locked; reading goes on; and so does all after.

    Whoever held the lock may commit, undo, or die.
    """
    with SessionManager(store) as manager:
        ledger = Ledger()
        ledger.create(manager, "a")
        manager.begin_task("a", "t")
        with Program(HOLDING, path, kind, "writing") as program:
            assert program.hear() == "held"
            for verb in (
                lambda: ledger.add(manager, "a"),
                lambda: manager.end_task("a", "t"),
                lambda: manager.create("b"),
                lambda: manager.fail("a", "boom"),
                lambda: manager.store.set_mark("ours", b""),
                lambda: SqliteStore(path, busy_timeout_seconds=0.1),
            ):
                with pytest.raises(StoreUnavailableError) as caught:
                    verb()
                assert "locked" in caught.value.problem
                assert str(path) in caught.value.problem
                assert caught.value.operation_id is None
            ledger.check(manager)
            assert manager.get("a").state.active_tasks == ("t",)
            assert manager.store.mark("theirs") is None
            if end_of_it == "death":
                program.kill()
            else:
                program.say(end_of_it)
                assert program.rest() == ["let go"]
        assert manager.store.mark("theirs") == (b"\x01" if end_of_it == "COMMIT" else None)
        ledger.add(manager, "a")
        manager.end_task("a", "t")
        ledger.check(manager)
    assert count_of(path, "a") == 1


def test_faults_lock_let_go_of_in_time(path: Path) -> None:
    """A change waits for another writer, and is made when that is done."""
    with SessionManager(f"sqlite:///{path}") as manager:
        ledger = Ledger()
        ledger.create(manager, "a")
        with Program(HOLDING, path, "IMMEDIATE", "writing") as program:
            assert program.hear() == "held"
            change = begin(ledger.add, manager, "a")
            ledger_while_held = manager.get("a").state.metadata["count"]
            assert not change.done()
            program.say("COMMIT")
            end(change)
            assert program.rest() == ["let go"]
        assert ledger_while_held == 0
        ledger.check(manager)


def test_faults_lock_in_the_middle_of_a_batch(store: SqliteStore, path: Path) -> None:
    """A batch that can't begin does nothing at all; what it would have told is not told."""
    with SessionManager(store) as manager:
        ledger = Ledger()
        ledger.create(manager, "a")
        told: list[object] = []
        manager.subscribe(told.append)
        with Program(HOLDING, path, "IMMEDIATE", "reading") as program:
            assert program.hear() == "held"
            with pytest.raises(StoreUnavailableError, match="locked"), manager.batch():
                told.append("the block was entered")
            assert told == []
            program.say("ROLLBACK")
            assert program.rest() == ["let go"]
        with manager.batch():
            ledger.add(manager, "a")
        assert len(told) == 1
        ledger.check(manager)


def test_faults_lock_of_a_reader_holds_up_nobody(store: SqliteStore, path: Path) -> None:
    """A process that reads for long sees what it began with, while others change and are seen."""
    with SessionManager(store) as manager:
        ledger = Ledger()
        ledger.create(manager, "a")
        with Program(HOLDING, path, "DEFERRED; --", "reading") as program:
            assert program.hear() == "held"
            for _ in range(50):
                ledger.add(manager, "a", ballast=5_000)
            ledger.check(manager)
            program.say("SELECT count(*) FROM session")
            assert program.rest() == ["let go"]
        ledger.check(manager)
    assert count_of(path, "a") == 50
