"""How often rows were fired, through the manager, and in a file that was tampered with."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from drawing import START

from session_fsm import (
    SESSION_LIFECYCLE,
    CorruptRecordError,
    Row,
    SchemaVersionError,
    SessionManager,
    StoreUnavailableError,
)
from session_fsm.compaction import fired
from session_fsm.state import RECOVERY_POLICIES
from session_fsm.stores import MemoryStore, SqliteStore
from session_fsm.testing import ManualClock

URLS = pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/sessions.db"])


def work(manager: SessionManager, session_id: str, **more: Any) -> None:
    """Create a session, and do one task in it."""
    manager.create(session_id, config=more)
    manager.begin_task(session_id, "t")
    manager.end_task(session_id, "t")


@URLS
def test_traffic_tells_every_row(url: str, tmp_path: Path) -> None:
    """Each row is there with each of its sources; sessions that aren't kept count like others."""
    clock = ManualClock(START)
    with SessionManager(url.format(tmp_path), clock=clock) as manager:
        keys = [(row.trigger, source) for row, source in SESSION_LIFECYCLE.moves()]
        assert manager.traffic() == dict.fromkeys(keys, 0)
        work(manager, "a")
        work(manager, "b", persistence_enabled=False)
        clock.advance(timedelta(hours=1))
        manager.sweep()
        found = manager.traffic()
        assert [*found] == keys
        assert {key: number for key, number in found.items() if number} == {
            ("activate", "initializing"): 2,
            ("go_idle", "active"): 2,
            ("expire", "idle"): 2,
            ("finish", "terminating"): 2,
            ("begin_task", "active"): 2,
            ("end_task", "active"): 2,
        }
        clock.advance(timedelta(days=1))
        assert manager.purge(ended_before=clock.now()) == 2
        assert not any(manager.traffic().values())


def test_traffic_agrees_with_the_histories(tmp_path: Path) -> None:
    """The counts are those that reading each history would give."""
    with SessionManager(f"sqlite:///{tmp_path}/sessions.db", clock=ManualClock(START)) as manager:
        for number in range(5):
            work(manager, f"s{number}", recovery=RECOVERY_POLICIES[number % 3])
            manager.touch(f"s{number}")
            manager.update(f"s{number}", config={"recovery": RECOVERY_POLICIES[number % 2]})
        assert manager.compact("s1", keep=2)
        told = [
            row
            for number in range(5)
            for row, count in fired(manager.history(f"s{number}")).items()
            for _ in range(count)
        ]
        found = manager.traffic()
        assert {key: told.count(key) for key in found} == found
        assert sum(found.values()) == len(told)


def test_traffic_is_of_one_lifecycle(tmp_path: Path) -> None:
    """Sessions of another lifecycle in the same file don't count."""
    other = SESSION_LIFECYCLE.extend(rows=(Row("nap", "idle", None),), name="napping")
    url = f"sqlite:///{tmp_path}/sessions.db"
    with SessionManager(url, clock=ManualClock(START)) as manager:
        work(manager, "a")
    with SessionManager(url, lifecycle=other, clock=ManualClock(START)) as manager:
        assert not any(manager.traffic().values())
        work(manager, "b")
        manager.fire("b", "nap")
        assert manager.traffic()["nap", "idle"] == 1
    with SessionManager(url, clock=ManualClock(START)) as manager:
        assert ("nap", "idle") not in manager.traffic()
        assert manager.traffic()["activate", "initializing"] == 1


def spoil(path: Path, change: str, revision: int) -> None:
    """Change the stored bytes of an event of session `a`, past what keeps them."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TRIGGER session_event_is_written_once")
        database.execute(
            f"UPDATE session_event SET body = CAST({change.replace('body', 'CAST(body AS TEXT)')}"
            f" AS BLOB) WHERE session_id = 'a' AND revision = {revision}"
        )
        database.commit()


@pytest.mark.parametrize(
    ("change", "fault", "named"),
    [
        ("'{'", CorruptRecordError, "event 3 of session 'a'"),
        ("x'ff00'", CorruptRecordError, "event 3 of session 'a'"),
        ("'[]'", CorruptRecordError, "event 3 of session 'a'"),
        ("json_remove(body, '$.trigger')", CorruptRecordError, "event 3 of session 'a'"),
        ("json_set(body, '$.source', 7)", CorruptRecordError, "event 3 of session 'a'"),
        ("json_set(body, '$.format', 4)", SchemaVersionError, "event 3 of session 'a'"),
    ],
)
def test_traffic_names_events_that_can_not_be_read(
    change: str, fault: type[Exception], named: str, tmp_path: Path
) -> None:
    """What can't be counted is an error that names it, not left out."""
    path = tmp_path / "sessions.db"
    with SessionManager(f"sqlite:///{path}", clock=ManualClock(START)) as manager:
        work(manager, "a")
        work(manager, "b")
    spoil(path, change, 3)
    with (
        closing(SqliteStore(path)) as store,
        pytest.raises(fault, match=named),
    ):
        store.traffic()


@pytest.mark.parametrize("number", ["'1'", "1.5", "json('true')", "json('null')", "json('[1]')"])
@pytest.mark.parametrize("revision", [1, 3])
def test_traffic_names_events_whose_format_is_no_number(
    number: str, revision: int, tmp_path: Path
) -> None:
    """An event that says no format is named, be it one that no row has made."""
    path = tmp_path / "sessions.db"
    with SessionManager(f"sqlite:///{path}", clock=ManualClock(START)) as manager:
        work(manager, "a")
    spoil(path, f"json_set(body, '$.format', {number})", revision)
    with (
        closing(SqliteStore(path)) as store,
        pytest.raises(CorruptRecordError, match=f"event {revision} of session 'a'"),
    ):
        store.traffic()


def test_traffic_of_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    """A store that was closed tells nothing."""
    for store in (MemoryStore(), SqliteStore(tmp_path / "sessions.db")):
        store.close()
        with pytest.raises(StoreUnavailableError):
            store.traffic()
