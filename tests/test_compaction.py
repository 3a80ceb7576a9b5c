"""Compaction: a checkpoint stands for the oldest events, and nothing that counts is lost by it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from commanding import call
from killing import killed_copies

from session_fsm import (
    CorruptRecordError,
    KeyMissingError,
    SessionManager,
    SessionNotFoundError,
    StoreUnavailableError,
)
from session_fsm.compaction import Checkpoint
from session_fsm.stores import MemoryStore, SessionStore, SqliteStore

SECRET = "a marked secret"

Opener = Callable[[], SessionManager]


@pytest.fixture(params=["memory", "sqlite", "passing", "encrypted"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionManager]:
    """A manager whose session `a` has 101 events, on each kind of store."""
    store: str | SessionStore = f"sqlite:///{tmp_path / 'sessions.db'}"
    if request.param == "memory":
        store = "memory://"
    if request.param == "encrypted":
        from session_fsm.keys import Keyring

        store = SqliteStore(tmp_path / "sessions.db", keyring=Keyring(bytes(range(32))))
    passing = {"persistence_enabled": False} if request.param == "passing" else {}
    with SessionManager(store) as manager:
        manager.create("a", config=passing, metadata={"n": 0, "secret": SECRET})
        for number in range(33):
            manager.fire("a", "go_idle")
            manager.fire("a", "resume")
            manager.update("a", metadata={"n": number, "secret": SECRET})
        yield manager
    if isinstance(store, SqliteStore):
        store.close()


def test_compaction_keeps_what_counts(manager: SessionManager) -> None:
    """State, revision, traffic and the last events are as before, and everything verifies."""
    session, traffic, history = manager.get("a"), manager.traffic(), manager.history("a")
    assert manager.compact("a", keep=10) == 91
    checkpoint, *kept = manager.history("a")
    assert (checkpoint.kind, checkpoint.revision) == ("checkpoint", history[90].revision)
    assert checkpoint.changes["stands_for"]["events"] == 91
    assert checkpoint.changes["stands_for"]["last_digest"] == history[90].digest
    assert tuple(kept) == history[91:]
    assert manager.get("a") == session
    assert manager.traffic() == traffic
    report = manager.verify()
    assert (report.ok, report.sessions, report.events) == (True, 1, 11)


def test_compaction_goes_on(manager: SessionManager) -> None:
    """A session moves on from its last event, and is compacted again from its checkpoint."""
    manager.compact("a", keep=1)
    assert manager.compact("a", keep=1) == 0
    last = manager.history("a")[-1]
    manager.begin_task("a", "build")
    assert manager.history("a")[1] == last
    manager.end_task("a", "build")
    traffic = manager.traffic()
    assert manager.compact("a", keep=1) == manager.get("a").revision - last.revision
    assert manager.history("a")[0].kind == "checkpoint"
    assert manager.history("a")[0].changes["stands_for"]["events"] == manager.get("a").revision - 1
    assert manager.traffic() == traffic
    assert manager.verify().ok


def test_compaction_ends_with_the_session(manager: SessionManager) -> None:
    """A purged session leaves no checkpoint; the next life of its id has one of its own."""
    manager.terminate("a")
    manager.compact("a", keep=2)
    ended = manager.get("a").state.updated_at
    assert manager.purge(ended_before=ended.replace(year=ended.year + 1)) == 1
    assert [event.kind for event in manager.history("a")] == ["purged"]
    with pytest.raises(SessionNotFoundError):
        manager.compact("a")
    again = manager.create("a")
    assert [event.kind for event in manager.history("a")] == ["purged", "created", "moved"]
    assert manager.compact("a", keep=2) == 0  # a tombstone leads to no state
    assert manager.compact("a", keep=1) == 2
    assert manager.get("a") == again
    assert manager.verify().ok


def test_compaction_is_undone_with_a_batch(manager: SessionManager) -> None:
    """What a batch compacted is as before if the batch is undone."""
    history = manager.history("a")
    with pytest.raises(ZeroDivisionError), manager.batch():
        manager.compact("a", keep=5)
        assert len(manager.history("a")) == 6
        raise ZeroDivisionError
    assert manager.history("a") == history
    assert manager.compact("a", keep=5) == 96
    assert manager.verify().ok


@pytest.mark.parametrize("keep", [0, -1, True, 1.5, "3", None])
def test_compaction_keeps_at_least_one_event(keep: object) -> None:
    """A number of events that is none is refused, and nothing is changed."""
    with SessionManager() as manager:
        manager.create("a")
        with pytest.raises(ValueError, match="keep: expected a number of events"):
            manager.compact("a", keep=keep)  # type: ignore[arg-type]  # that is what is tested
        assert len(manager.history("a")) == 2


def test_compaction_leaves_other_sessions_alone(tmp_path: Path) -> None:
    """The events of the others stay where they are, and those of an unknown id are none."""
    with SessionManager(f"sqlite:///{tmp_path / 'sessions.db'}") as manager:
        for session_id in ("a", "b"):
            manager.create(session_id)
            manager.fire(session_id, "go_idle")
        before = manager.history("b")
        assert manager.compact("a", keep=1) == 2
        assert manager.history("b") == before
        with pytest.raises(SessionNotFoundError):
            manager.compact("c")


def test_compaction_is_refused_where_a_store_keeps_everything() -> None:
    """A store that knows no checkpoints says so."""

    class Keeping(MemoryStore):
        compact = SessionStore.compact

    with SessionManager(Keeping()) as manager:
        manager.create("a")
        manager.fire("a", "go_idle")
        with pytest.raises(StoreUnavailableError, match="keeps every event"):
            manager.compact("a", keep=1)


# --- in a file -----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one session of 60 events."""
    path = tmp_path / "sessions.db"
    with SessionManager(f"sqlite:///{path}") as manager:
        manager.create("a", metadata={"x": "y"})
        for _ in range(29):
            manager.fire("a", "go_idle")
            manager.fire("a", "resume")
    return path


@contextmanager
def bare(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, by hand."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def opened(path: Path) -> SessionManager:
    """A manager of the file."""
    return SessionManager(f"sqlite:///{path}")


def test_compaction_refuses_a_history_that_does_not_verify(path: Path) -> None:
    """Nothing wrong is hidden behind a checkpoint."""
    with bare(path) as connection:
        connection.execute("DROP TRIGGER session_event_is_written_once")
        connection.execute("UPDATE session_event SET digest = replace(digest, 'a', 'b')")
    with opened(path) as manager:
        history = manager.history("a")
        with pytest.raises(CorruptRecordError, match=r"the history of session 'a'.*does not match"):
            manager.compact("a", keep=5)
        assert manager.history("a") == history


def changes_of_checkpoints() -> list[tuple[str, str]]:
    """What somebody may do to a checkpoint, and what is said of it."""
    return [
        ("body = replace(CAST(body AS TEXT), '\"y\"', '\"z\"')", "digest does not match"),
        ("body = replace(CAST(body AS TEXT), '\"go_idle\"', '\"go_away\"')", "does not match"),
        ("digest = replace(digest, substr(digest, 1, 1), 'x')", "digest does not match"),
        ("revision = revision - 1", "holds event"),
        ("body = replace(CAST(body AS TEXT), 'stands_for', 'stood_for')", "stands_for"),
        ('body = replace(CAST(body AS TEXT), \'"events":\', \'"events":""+\')', "not JSON"),
    ]


@pytest.mark.parametrize(("change", "told"), changes_of_checkpoints())
def test_compaction_shows_a_changed_checkpoint(path: Path, change: str, told: str) -> None:
    """A checkpoint that somebody changed is named by `verify`, as an event is."""
    with opened(path) as manager:
        manager.compact("a", keep=5)
    with bare(path) as connection:
        connection.execute("DROP TRIGGER session_checkpoint_is_written_once")
        column, value = change.split(" = ")
        value = f"CAST({value} AS BLOB)" if column == "body" else value
        connection.execute(f"UPDATE session_checkpoint SET {column} = {value}")
    with opened(path) as manager:
        report = manager.verify()
    assert any(told in problem for problem in report.problems), report.problems


def test_compaction_shows_a_missing_checkpoint(path: Path) -> None:
    """Without its checkpoint a history begins in the middle, which is no history."""
    with opened(path) as manager:
        manager.compact("a", keep=5)
    with bare(path) as connection:
        connection.execute("DROP TRIGGER session_checkpoint_stays")
        connection.execute("DELETE FROM session_checkpoint")
    with opened(path) as manager:
        assert not manager.verify().ok


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM session_event WHERE revision = 56", "the events of a session stay with it"),
        ("DELETE FROM session_checkpoint", "the checkpoint of a session stays with it"),
        ("UPDATE session_checkpoint SET digest = ''", "a checkpoint never changes"),
        ("INSERT OR REPLACE INTO session_checkpoint VALUES ('a', 60, x'', '')", "the last stays"),
        ("INSERT OR REPLACE INTO session_checkpoint VALUES ('a', 3, x'', '')", "stands for events"),
        ("INSERT INTO session_checkpoint VALUES ('b', 1, x'', '')", "stands for events"),
    ],
)
def test_compaction_is_guarded_by_the_database(path: Path, statement: str, told: str) -> None:
    """Whoever writes, no event goes that no checkpoint stands for, and no checkpoint goes back."""
    with opened(path) as manager:
        manager.compact("a", keep=5)
    with bare(path) as connection, pytest.raises(sqlite3.IntegrityError, match=told):
        connection.execute(statement)


def test_compaction_while_others_move_the_session(path: Path) -> None:
    """Sessions are compacted while they are moved; no move is lost, and all verifies."""
    rounds = 60
    with opened(path) as mover, opened(path) as compacter:
        started = threading.Barrier(2)

        def move() -> None:
            started.wait()
            for _ in range(rounds):
                mover.fire("a", "go_idle")
                mover.fire("a", "resume")

        thread = threading.Thread(target=move)
        thread.start()
        started.wait()
        replaced = 0
        while thread.is_alive():
            replaced += compacter.compact("a", keep=3)
        thread.join()
        replaced += compacter.compact("a", keep=3)
        assert compacter.get("a").revision == 60 + 2 * rounds
        assert replaced == 60 + 2 * rounds - 3
        assert sum(compacter.traffic().values()) == 60 + 2 * rounds - 1
        assert compacter.verify().ok


def test_compaction_of_what_another_has_compacted(path: Path) -> None:
    """A checkpoint that was made of older news is refused by the store, and made anew."""
    made: list[Checkpoint] = []

    class Late(SqliteStore):
        def compact(self, checkpoint: Checkpoint) -> int:
            made.append(checkpoint)
            if len(made) == 1:
                with opened(path) as other:
                    assert other.compact("a", keep=20) == 40
            return super().compact(checkpoint)

    store = Late(path)
    with SessionManager(store) as manager:
        assert manager.compact("a", keep=30) == 0
        assert manager.compact("a", keep=10) == 10
        assert manager.verify().ok
    store.close()
    assert len(made) == 2


COMPACTING = """
    from session_fsm import SessionManager

    def act(path):
        with SessionManager(f"sqlite:///{path}") as manager:
            manager.compact("a", keep=57)
"""


def test_compaction_killed_anywhere_loses_nothing(path: Path, tmp_path: Path) -> None:
    """A kill before any of its statements leaves the whole history, or the whole checkpoint."""
    with opened(path) as manager:
        before = manager.get("a"), manager.traffic()
        events = len(manager.history("a"))
    left = killed_copies(COMPACTING, path, tmp_path / "killed")
    assert len(left) > 20
    found = set()
    for copy in left:
        with opened(copy) as manager:
            assert (manager.get("a"), manager.traffic()) == before
            assert manager.verify().ok
            found.add(len(manager.history("a")))
            assert manager.compact("a", keep=57) in (0, events - 57)
    assert found == {events, 58}


def test_compaction_of_a_session_whose_key_is_missing(tmp_path: Path) -> None:
    """Without the key nothing is compacted; with it, the checkpoint shows nothing in the file."""
    from session_fsm.keys import Keyring

    path = tmp_path / "sessions.db"
    keyring = Keyring(bytes(range(32)))
    with closing(SqliteStore(path, keyring=keyring)) as store, SessionManager(store) as manager:
        manager.create("a", metadata={"secret": SECRET})
        manager.fire("a", "go_idle")
    with opened(path) as manager, pytest.raises(KeyMissingError):
        manager.compact("a", keep=1)
    with closing(SqliteStore(path, keyring=keyring)) as store, SessionManager(store) as manager:
        assert manager.compact("a", keep=1) == 2
        assert manager.history("a")[0].changes["metadata"] == {"secret": SECRET}
        assert manager.verify().ok
    with opened(path) as manager:
        report = manager.verify()
        assert (report.ok, report.locked) == (True, 1)
    files = [each for each in path.parent.iterdir() if each.is_file()]
    assert not any(SECRET.encode() in each.read_bytes() for each in files)


# --- by command ----------------------------------------------------------------------------------


def test_compaction_by_command(path: Path) -> None:
    """The command compacts the sessions that are named, or all, and says what was replaced."""
    with opened(path) as manager:
        manager.create("b")
    told = call("compact", "--keep", "10", "a", store=path)
    assert (told.code, told.out) == (0, "50 events of 1 session replaced by checkpoints\n")
    told = call("compact", "--keep", "1", "--json", store=path)
    assert (told.code, told.document) == (0, {"sessions": 2, "events": 10, "failed": []})
    told = call("compact", "unknown", "a", store=path)
    assert told.code == 1
    assert "unknown" in told.err
    with opened(path) as manager:
        assert manager.verify().ok
        assert len(manager.history("a")) == len(manager.history("b")) == 2
