"""A disk that is full: what is refused is told, what was acknowledged stays, and work goes on."""

from pathlib import Path

import pytest
from faulty import PREAMBLE, count_of, disks
from processes import Program

from session_fsm import SessionManager

LOG = (
    PREAMBLE
    + """
disk = Disk(sys.argv[1], Path(sys.argv[2]))
path = disk.directory / "sessions.db"
manager, ledger = SessionManager(f"sqlite:///{path}"), Ledger()
ledger.create(manager, "a")
ledger.create(manager, "b")
disk.fill(spare=100_000)
try:
    for _ in range(1000):
        ledger.add(manager, "a", ballast=5_000)
except StoreUnavailableError as fault:
    print(fault.problem)
    print(fault.operation_id)
print(ledger.counts["a"] > 0)
ledger.check(manager)  # who reads is not held up
refused = []
for verb in (
    lambda: ledger.add(manager, "b", ballast=20_000),
    lambda: manager.create("c", metadata={"big": "x" * 20_000}),
    lambda: manager.store.set_mark("m", b"x" * 20_000),
    lambda: SessionManager(f"sqlite:///{path}").create("c", metadata={"big": "x" * 20_000}),
):
    try:
        verb()
    except StoreUnavailableError as fault:
        refused.append(fault.operation_id)
print(refused)
ledger.check(manager)
disk.clear()
ledger.add(manager, "a", ballast=5_000)
ledger.add(manager, "b", ballast=20_000)
ledger.create(manager, "c")
ledger.check(manager)
manager.close()
with SessionManager(f"sqlite:///{path}") as again:
    ledger.check(again)
print("went on")
"""
)


@pytest.mark.parametrize("way", disks())
def test_faults_disk_full_under_the_log(tmp_path: Path, way: str) -> None:
    """A change that finds no room did not happen, and says so; the same manager goes on later."""
    with Program(LOG, way, tmp_path) as program:
        problem, operation, some, refused, went_on = program.rest()
    assert str(tmp_path / "sessions.db") in problem
    assert ("SQLITE_FULL" if way == "mount" else "SQLITE_IOERR") in problem
    assert operation == "None"  # it is known that nothing changed
    assert some == "True"
    assert refused == "[None, None, None, None]"
    assert went_on == "went on"


BATCH = (
    PREAMBLE
    + """
disk = Disk(sys.argv[1], Path(sys.argv[2]))
path = disk.directory / "sessions.db"
manager, ledger = SessionManager(f"sqlite:///{path}"), Ledger()
ledger.create(manager, "a")
told = []
manager.subscribe(told.append)
disk.fill(spare=100_000)
trial = Ledger()
trial.counts["a"] = 0
try:
    with manager.batch():
        for number in range(100):
            trial.add(manager, "a", ballast=5_000)
except StoreUnavailableError as fault:
    print("refused")
print(len(told))
ledger.check(manager)
disk.clear()
with manager.batch():
    for number in range(100):
        ledger.add(manager, "a", ballast=5_000)
print(len(told))
ledger.check(manager)
manager.close()
"""
)


@pytest.mark.parametrize("way", disks())
def test_faults_disk_full_undoes_a_whole_batch(tmp_path: Path, way: str) -> None:
    """Of a batch that finds no room nothing is kept and nothing told; the next one is whole."""
    with Program(BATCH, way, tmp_path) as program:
        assert program.rest() == ["refused", "0", "100"]


CHECKPOINT = (
    PREAMBLE
    + """
disk = Disk(sys.argv[1], Path(sys.argv[2]))
path = disk.directory / "sessions.db"
manager, ledger = SessionManager(f"sqlite:///{path}"), Ledger()
ledger.create(manager, "a")
with plain(path) as other:
    for _ in range(80):
        ledger.add(manager, "a", ballast=5_000)
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for _ in range(8):
        ledger.add(manager, "a", ballast=5_000)
    # From here on there is a log that can be written from its beginning, without any new room.
    other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    disk.fill()
    for _ in range(6):
        ledger.add(manager, "a", ballast=5_000)
    try:
        other.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    except sqlite3.Error as fault:
        print(fault.sqlite_errorname)
    ledger.add(manager, "a")
    ledger.check(manager)
    if sys.argv[3] == "go on":
        disk.clear()
        ledger.add(manager, "a", ballast=5_000)
        busy, in_log, moved = other.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        print(in_log == moved > 0)
        ledger.check(manager)
manager.close()
disk.clear() if sys.argv[3] == "close" else None
with SessionManager(f"sqlite:///{path}") as again:
    ledger.check(again)
print(ledger.counts["a"])
"""
)


@pytest.mark.parametrize("way", disks())
@pytest.mark.parametrize("then", ["go on", "close"])
def test_faults_disk_full_under_the_database(tmp_path: Path, way: str, then: str) -> None:
    """Changes that can't be moved from the log are kept there, by the end of the manager too."""
    with Program(CHECKPOINT, way, tmp_path, then) as program:
        fault, *moved, count = program.rest()
    assert fault == ("SQLITE_FULL" if way == "mount" else "SQLITE_IOERR_WRITE")
    assert moved == (["True"] if then == "go on" else [])
    assert count == ("96" if then == "go on" else "95")
    if way == "limit":
        assert count_of(tmp_path / "sessions.db", "a") == int(count)


SWEEP = (
    PREAMBLE
    + """
from datetime import UTC, datetime
from session_fsm.clock import ManualClock
clock = ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
manager = SessionManager(f"sqlite:///{sys.argv[1]}/sessions.db", clock=clock)
manager.create("a", config={"timeout_minutes": 1})
clock.advance(61)
with limited(resource.RLIMIT_FSIZE, 0):
    [(session_id, why)] = manager.sweep().failed
    print(session_id, "nothing was changed" in why)
print(*(event.trigger for event in manager.sweep().fired))
manager.close()
"""
)


def test_faults_disk_full_leaves_a_sweep_to_the_next(tmp_path: Path) -> None:
    """What is due and can't be written is named by the sweep, and fired by the next one."""
    with Program(SWEEP, tmp_path) as program:
        assert program.rest() == ["a True", "expire finish"]


def test_faults_disk_is_seen_by_no_other_process(tmp_path: Path) -> None:
    """A program that ran out of room leaves a file with which everybody else goes on."""
    with Program(CHECKPOINT, "limit", tmp_path, "close") as program:
        program.rest()
    with SessionManager(f"sqlite:///{tmp_path / 'sessions.db'}") as manager:
        assert manager.terminate("a").status == "terminated"
        assert manager.verify().ok
