"""Rubbish where a store is opened: logs of others, a directory in place of the file, no directory.

A log that is found beside a database is taken for its own: SQLite has nothing to tell by that it
belongs to another one. What holds is that it is named, or refused; see the README.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import Ledger, copied, count_of, plain

from session_fsm import SessionManager, StoreError, StoreUnavailableError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that was closed in good order, so without a log, with a counter at 2."""
    path = tmp_path / "sessions.db"
    with SessionManager(f"sqlite:///{path}") as manager:
        ledger = Ledger()
        ledger.create(manager, "a")
        ledger.add(manager, "a")
        ledger.add(manager, "a")
    assert not beside(path, "-wal").exists()
    return path


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """A store that is open, with other sessions in its log, some of them large."""
    path = tmp_path / "other" / "sessions.db"
    path.parent.mkdir()
    with SessionManager(f"sqlite:///{path}") as manager:
        with plain(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for number in range(30):
            manager.create(f"b{number}", metadata={"big": "x" * 5_000})
        yield path


def beside(path: Path, suffix: str) -> Path:
    """The log of a file, or the index of that."""
    return path.with_name(f"{path.name}{suffix}")


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize(
    "content", [b"", b"rubbish" * 9000, b"\x00" * 32768], ids=["empty", "text", "zeros"]
)
def test_faults_beside_rubbish(path: Path, suffix: str, content: bytes) -> None:
    """What is no log, and no index of one, is not read."""
    beside(path, suffix).write_bytes(content)
    assert count_of(path, "a") == 2


def test_faults_beside_the_index_of_another_log(path: Path, other: Path) -> None:
    """An index of somebody else's log is made anew from the own one."""
    shutil.copy(beside(other, "-shm"), beside(path, "-shm"))
    assert count_of(path, "a") == 2


def test_faults_beside_the_log_of_another_store(path: Path, other: Path) -> None:
    """A log that is another store's gives no mixture that passes: it is refused or named.

    Before it is opened, nothing is lost; the log that is taken away leaves the store as it was.
    """
    safe = copied(path, path.parent / "safe")
    shutil.copy(beside(other, "-wal"), beside(path, "-wal"))
    try:
        with SessionManager(f"sqlite:///{path}") as manager:
            report = manager.verify()
            named = not report.ok or manager.find("a") is None
    except StoreError:
        named = True
    assert named
    assert count_of(safe, "a") == 2


def test_faults_beside_a_directory_for_a_log(path: Path) -> None:
    """Where no log can be made, the store is refused and stays as it is."""
    before = path.read_bytes()
    beside(path, "-wal").mkdir()
    with pytest.raises(StoreUnavailableError) as caught:
        SessionManager(f"sqlite:///{path}")
    assert str(path) in caught.value.problem
    assert caught.value.operation_id is None
    assert path.read_bytes() == before
    beside(path, "-wal").rmdir()
    assert count_of(path, "a") == 2


def test_faults_beside_a_directory_in_its_place(path: Path) -> None:
    """A directory is no store, and nothing is made in it; the file put back is."""
    aside = path.rename(path.with_name("aside.db"))
    path.mkdir()
    with pytest.raises(StoreUnavailableError) as caught:
        SessionManager(f"sqlite:///{path}")
    assert str(path) in str(caught.value)
    assert os.listdir(path) == []
    path.rmdir()
    aside.rename(path)
    assert count_of(path, "a") == 2


def test_faults_beside_no_directory(tmp_path: Path) -> None:
    """A store in a directory that is missing is refused, and makes no directory."""
    path = tmp_path / "missing" / "sessions.db"
    with pytest.raises(StoreUnavailableError) as caught:
        SessionManager(f"sqlite:///{path}")
    assert str(path.parent) in str(caught.value)
    assert not path.parent.exists()
    path.parent.mkdir()
    with SessionManager(f"sqlite:///{path}") as manager:
        Ledger().create(manager, "a")
    assert count_of(path, "a") == 0


def test_faults_beside_a_pipe_in_its_place(tmp_path: Path) -> None:
    """A pipe is refused, and nobody waits for its other end."""
    path = tmp_path / "sessions.db"
    os.mkfifo(path)
    with pytest.raises(StoreUnavailableError) as caught:
        SessionManager(f"sqlite:///{path}")
    assert str(path) in str(caught.value)
