"""Bytes of the database that are not as they were written: told or named, and never passed over.

SQLite sees damage to the structure of a page. Damage to what a page holds is seen by the digests of
the events, by the comparison of each session with its history, and of each index with its table.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from faulty import Ledger

from session_fsm import CorruptRecordError, SessionManager, StoreError
from session_fsm.clock import ManualClock
from session_fsm.stores.sqlite_connection import PAGE_BYTES

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOTS = (
    "legal_move",
    "lifecycle",
    "lifecycle_status",
    "mark",
    "session",
    "session_by_deadline",
    "session_by_end",
    "session_by_status",
    "session_count",
    "session_event",
    "work",
    "work_by_owner",
    "work_to_stop",
)
"""Each table and index of the store that has a name of ours."""


def opened(path: Path) -> SessionManager:
    """Return a manager whose clock stands still."""
    return SessionManager(f"sqlite:///{path}", clock=ManualClock(START))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database without a log, with sessions of several kinds in it."""
    path = tmp_path / "sessions.db"
    with opened(path) as manager:
        for number in range(6):
            manager.create(f"s{number}", metadata={"word": "abracadabra"})
        manager.begin_task("s1", "simsalabim")
        manager.terminate("s2")
        manager.store.set_mark("position", b"123")
    return path


def answers(manager: SessionManager) -> tuple[object, ...]:
    """Return what a manager says to whoever asks for everything."""
    every = [f"s{number}" for number in range(6)]
    return (
        [manager.get(each) for each in every],
        [manager.history(each) for each in every],
        [manager.store.work_in(each) for each in every],
        [each.session_id for each in manager.list(status=manager.lifecycle.statuses)],
        [each.session_id for each in manager.list(status="terminated")],
        manager.counts(),
        manager.store.next_deadline(),
        manager.store.mark("position"),
        manager.traffic(),
    )


def damage(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change the bytes of a file."""
    content = bytearray(path.read_bytes())
    before = bytes(content)
    change(content)
    assert content != before
    path.write_bytes(content)


def root_page(path: Path, name: str) -> int:
    """Return where the first page of a table or an index begins."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        [(number,)] = connection.execute(query, (name,)).fetchall()
        [(size,)] = connection.execute("PRAGMA page_size").fetchall()
    return int((number - 1) * size)


def told(path: Path) -> list[str]:
    """Return what is named by the check of a damaged store, or the error of whoever opens it."""
    try:
        with opened(path) as manager:
            report = manager.verify()
            assert report.ok == (not report.problems)
            return list(report.problems)
    except CorruptRecordError as fault:
        return [str(fault)]


@pytest.mark.parametrize("name", ROOTS)
def test_faults_pages_whose_kind_is_lost(path: Path, name: str) -> None:
    """A page that is none any longer is told of by all who need it, and by the check; others go on.

    An answer that is given is the right one.
    """
    with opened(path) as manager:
        before = answers(manager)
    start = root_page(path, name)

    def lose(content: bytearray) -> None:
        content[start] ^= 0xFF

    damage(path, lose)
    with suppress(CorruptRecordError), opened(path) as manager:
        assert answers(manager) == before
    problems = told(path)
    assert any(str(path) in problem or "database" in problem for problem in problems)


@pytest.mark.parametrize("name", ["session", "session_event", "session_by_status"])
def test_faults_pages_of_zeros(path: Path, name: str) -> None:
    """A page that reads as zeros, as after a lost write, is not taken for an empty table."""
    start = root_page(path, name)

    def lose(content: bytearray) -> None:
        content[start : start + PAGE_BYTES] = bytes(PAGE_BYTES)

    damage(path, lose)
    with pytest.raises(CorruptRecordError), opened(path) as manager:
        answers(manager)
    assert told(path) != []


@pytest.mark.parametrize("position", [0, 15, 16, 60, 68], ids=lambda at: f"byte{at}")
def test_faults_pages_with_a_damaged_header(path: Path, position: int) -> None:
    """A file whose header is not ours is refused as a whole, and left as it is."""
    damage(path, lambda content: content.__setitem__(position, content[position] ^ 0x40))
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        opened(path)
    assert caught.type.__name__ in {"CorruptRecordError", "SchemaVersionError"}
    assert path.read_bytes() == before


def test_faults_pages_of_a_file_that_was_cut(path: Path) -> None:
    """A database that lost its end is told of."""
    damage(path, lambda content: content.__delitem__(slice(len(content) // 2, None)))
    assert told(path) != []


def test_faults_pages_with_a_schema_that_is_no_text(path: Path) -> None:
    """Broken words in the schema itself are an error of the store, whoever quotes them."""
    content = path.read_bytes()
    position = content.index(b"CREATE TRIGGER session_begins") + 9
    damage(path, lambda content: content.__setitem__(position, content[position] ^ 0x80))
    with pytest.raises(CorruptRecordError, match=r"sessions\.db"):
        opened(path)


def test_faults_pages_with_other_words_in_an_event(path: Path) -> None:
    """One letter of an event breaks the chain, and the check names the session."""
    with closing(sqlite3.connect(path)) as connection:
        [(body,)] = connection.execute(
            "SELECT body FROM session_event WHERE session_id = 's1' AND revision = 3"
        ).fetchall()
    content = path.read_bytes()
    assert content.count(body) == 1
    position = content.index(body) + body.index(b"simsalabim")
    damage(path, lambda content: content.__setitem__(position, ord("S")))
    problems = told(path)
    assert problems
    assert all("session 's1'" in problem for problem in problems)


def test_faults_pages_with_other_words_in_a_state(path: Path) -> None:
    """One letter of a state is named by the check, which compares it with its history."""
    with closing(sqlite3.connect(path)) as connection:
        [(state,)] = connection.execute(
            "SELECT CAST(state AS BLOB) FROM session WHERE session_id = 's3'"
        ).fetchall()
    content = path.read_bytes()
    assert content.count(state) == 1
    position = content.index(state) + state.index(b"abracadabra")
    damage(path, lambda content: content.__setitem__(position, ord("A")))
    [problem] = told(path)
    assert "session 's3'" in problem
    assert "metadata" in problem


def test_faults_pages_with_another_word_in_an_index(path: Path) -> None:
    """An entry of an index that is not that of its row is named by the check."""
    start = root_page(path, "session_by_deadline")
    position = path.read_bytes().index(b"2026", start, start + PAGE_BYTES)
    damage(path, lambda content: content.__setitem__(position + 3, ord("7")))
    assert any("session_by_deadline" in problem for problem in told(path))


def test_faults_pages_of_one_session_hold_up_no_other(tmp_path: Path) -> None:
    """Where one session lies on a broken page, those on others are read and changed."""
    path = tmp_path / "sessions.db"
    ledger = Ledger()
    with opened(path) as manager:
        for number in range(40):
            ledger.create(manager, f"s{number:02}")
            ledger.add(manager, f"s{number:02}", ballast=3_000)
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT CAST(state AS BLOB) FROM session WHERE session_id = 's20'"
        [(state,)] = connection.execute(query).fetchall()
    content = path.read_bytes()
    start = content.index(state[:60]) // PAGE_BYTES * PAGE_BYTES
    damage(path, lambda content: content.__setitem__(start, content[start] ^ 0xFF))
    with opened(path) as manager:
        lost = []
        for session_id in ledger.counts:
            try:
                assert manager.get(session_id).state.metadata["count"] == 1
            except CorruptRecordError:  # and never that there is none
                lost.append(session_id)
        assert "s20" in lost
        assert len(lost) < 5
        for session_id in ledger.counts.keys() - lost:
            ledger.add(manager, session_id)
            assert manager.get(session_id).state.metadata["count"] == 2
    assert told(path) != []
