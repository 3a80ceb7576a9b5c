"""What the tests of replays share: logs made by hand, and what a replay left in a store."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import attrs
from replay_model import ModelRow

from session_fsm import SessionEvent
from session_fsm.replay import Log, LogRow, Report, RowKind, read_log, replay
from session_fsm.stores import MemoryStore, SessionStore
from session_fsm.stores.abc import all_ids
from session_fsm.stores.records import Commit

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "sample_trace.jsonl.gz"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
"""Second 0 of every log that is made by hand."""
MICROSECOND = 1e-6

KINDS = {
    "request": RowKind.BEGIN,
    "response": RowKind.BEGIN,
    "interrupt": RowKind.END,
    "exit": RowKind.EXIT,
    "meta": RowKind.OTHER,
}
"""The events of logs that are made by hand: one of each kind, and a prompt."""

WORDS = {"request": "request", "response": "begin", "interrupt": "end", "meta": "other"}

# --- logs -----------------------------------------------------------------------------------


def row(seconds: float, event: str, session: str = "a") -> LogRow:
    """A row at some seconds after the start."""
    return LogRow(
        at=START + timedelta(microseconds=round(seconds * 1_000_000)),
        session=session,
        event=event,
        kind=KINDS[event],
        request=event == "request",
        file="log",
        line=1,
    )


def log_of(*rows: LogRow, late_rows: int = 0) -> Log:
    """A log of rows, which are put in the order of time; on a tie they keep theirs."""
    ordered = tuple(sorted(rows, key=lambda row: row.at))
    digest = hashlib.sha256(repr(ordered).encode()).hexdigest()
    return Log(rows=ordered, late_rows=late_rows, faults=(), digest=digest)


def model_rows(log: Log) -> list[ModelRow]:
    """The rows of a log made by hand, for the model."""
    return [(_micros(row.at), row.session, WORDS.get(row.event, row.event)) for row in log.rows]


def _micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


# --- what is stored -------------------------------------------------------------------------

Print = tuple[str, int, str]
"""An event by its session, its revision and its digest, which stands for all that it says."""


def events_of(store: SessionStore) -> dict[str, tuple[SessionEvent, ...]]:
    """The history of each session, by id."""
    return {
        session_id: tuple(event for _, event in store.history(session_id))
        for session_id in all_ids(store)
    }


def steps_of(store: SessionStore, session_id: str) -> list[tuple[float, str]]:
    """When each step of a session was made, in seconds from the start, and what was fired."""
    return [(seconds_of(event), word_of(event)) for event in events_of(store)[session_id]]


def seconds_of(event: SessionEvent) -> float:
    """When an event was, in seconds from the start."""
    return (event.at - START).total_seconds()


def word_of(event: SessionEvent) -> str:
    """What was fired, or that the session was created."""
    return event.trigger or event.kind


def lives_of(store: SessionStore) -> dict[str, dict[str, Any]]:
    """The sessions of a store, told as the model tells them."""
    lives: dict[str, dict[str, Any]] = {}
    for session_id, events in events_of(store).items():
        stored = store.load(session_id)
        assert stored is not None
        state = stored.state
        moves = [event for event in events if event.kind == "moved"]
        lives[session_id] = {
            "name": state.metadata["log_session"],
            "before": state.metadata.get("resumed_from"),
            "born": _micros(events[0].at),
            "status": str(state.status),
            "moves": [(_micros(event.at), str(event.source), str(event.target)) for event in moves],
            "in_turn": bool(state.active_tasks),
            "conversations": state.conversation_count,
            "last_activity": _micros(state.last_activity_at),
        }
    return lives


def model_lives(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The lives that the model tells of, as `lives_of` tells them."""
    kept = ("name", "born", "status", "moves", "in_turn", "conversations", "last_activity")
    return {
        session_id: {name: life[name] for name in kept}
        | {"before": life["before"] and life["before"]["session_id"]}
        for session_id, life in told["lives"].items()
    }


def assert_agrees(report: Report, told: dict[str, Any], *, late_rows: int = 0) -> None:
    """Compare a report with what the model tells, figure by figure."""
    said = report.as_dict()
    said["edges"] = {edge: number for edge, number in said["edges"].items() if number}
    del said["problems"], said["rows_per_second"]
    expected = {key: told[key] for key in said if key not in ("late_rows", "verified")}
    assert said == expected | {"late_rows": late_rows, "verified": True}


# --- an unbroken run, to compare with -------------------------------------------------------


class RecordingStore(MemoryStore):
    """A store in memory that notes what is written, and how much of it at each position.

    Attributes:
        prints: Every event, in the order of writing.
        written: How many of them there were when a position was stored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prints: list[Print] = []
        self.written: dict[int | None, int] = {None: 0}

    def commit(self, commit: Commit) -> None:
        super().commit(commit)
        events = (step.sealed.event for step in commit.steps)
        self.prints += [(event.session_id, event.revision, event.digest) for event in events]

    def set_mark(self, name: str, body: bytes) -> None:
        super().set_mark(name, body)
        self.written[json.loads(body)["position"]] = len(self.prints)


@attrs.frozen
class Unbroken:
    """A replay that nothing interrupted, with its position stored after each row."""

    log: Log
    report: Report
    store: RecordingStore

    def assert_prefix(self, prints: list[Print], position: int | None) -> None:
        """The events that are stored are those up to the position: not one more, not one less."""
        assert prints == self.store.prints[: self.store.written[position]]

    def assert_whole(self, prints: list[Print], report: Report) -> None:
        """A run that was interrupted came to the same end."""
        assert report == self.report
        assert report.verified
        assert prints == self.store.prints


def unbroken_run(log: Log, **settings: Any) -> Unbroken:
    """Replay a log without a break."""
    store = RecordingStore()
    return Unbroken(log, replay(log, store, rows_per_batch=1, **settings), store)


@cache
def unbroken_trace(path: Path) -> Unbroken:
    """Replay a trace without a break; once for all tests."""
    return unbroken_run(read_log([path]))


# --- SQLite files, looked at from outside ---------------------------------------------------


def url_of(path: Path) -> str:
    """The URL of the store in a file."""
    return f"sqlite:///{path}"


def _ask(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def has_schema(path: Path) -> bool:
    """Tell whether there is a database, and anything in it."""
    return path.exists() and bool(_ask(path, "SELECT name FROM sqlite_master"))


def prints_in(path: Path) -> list[Print]:
    """Every event in a file, in the order of writing."""
    if not has_schema(path):
        return []
    rows = _ask(path, "SELECT session_id, revision, digest FROM session_event ORDER BY seq")
    return [(session_id, revision, digest) for session_id, revision, digest in rows]


def position_in(path: Path) -> int | None:
    """The position that is stored in a file; None if there is none yet."""
    if not has_schema(path):
        return None
    rows = _ask(path, "SELECT body FROM mark")
    return None if not rows else json.loads(rows[0][0])["position"]


class StopError(Exception):
    """Raised by a test to interrupt a replay between two batches."""


def stop_at(position: int) -> Callable[[int, int], None]:
    """Return a listener that interrupts a replay once it has come to a position."""

    def listen(done: int, _: int) -> None:
        if done >= position:
            raise StopError

    return listen
