"""What became of the sessions of a log: counted while it was replayed, and read from the store."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, Self

import attrs

from ..errors import SessionFsmError
from ..jsonvalue import dump_json, parse_json
from ..lifecycle import Lifecycle
from ..manager import SessionManager
from ..session import Session, SessionEvent
from .reading import Log

LOG_SESSION: Final = "log_session"
"""Where the metadata of a session names the id in the log that it was made for."""


@attrs.define(kw_only=True)
class Tally:
    """What a replay knows that is in no session; kept in the store with the position.

    Attributes:
        input: Digest of the log and the settings.
        position: How many rows are done.
        finished: Whether the deadlines up to the end of the log are done too.
        successors: How many sessions were opened for ids whose session had ended.
        trailing_rows: How many rows came for ended sessions, and began nothing.
        refusals: How many moves were refused, by the kind of refusal.
        findings: How many things were found that should not be, by kind.
    """

    input: str
    position: int = 0
    finished: bool = False
    successors: int = 0
    trailing_rows: int = 0
    refusals: dict[str, int] = attrs.field(factory=dict)
    findings: dict[str, int] = attrs.field(factory=dict)

    def count(self, what: str, kind: str) -> None:
        """Count one more `refusals` or `findings` of a kind."""
        counts: dict[str, int] = getattr(self, what)
        counts[kind] = counts.get(kind, 0) + 1

    def to_json(self) -> bytes:
        """Return the tally as bytes for the store."""
        return dump_json(attrs.asdict(self))

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read a tally from the store."""
        return cls(**parse_json(body))


@attrs.frozen(kw_only=True)
class Report:
    """What became of the sessions of a log.

    Attributes:
        rows: Rows that were read.
        sessions: Sessions that were made, successors included.
        successors: Those of them that go on after one that had ended.
        requests: Typed prompts.
        ended: Sessions by end: `exit`, `expired`, `open`.
        edges: Moves by edge, `source->target`, in the order of the table.
        refusals: Refused moves by kind.
        findings: What should not have been in the log, by kind.
        trailing_rows: Rows of ended sessions that began nothing.
        seconds_in_status: Time that all sessions together spent in each status, up to the time of
            the last row.
        peak_open: Most sessions that were open at once.
        late_rows: Rows that stand in their file after a later one of their session.
        verified: Whether every session agrees with its history.
        problems: What the verification found.
        rows_per_second: Rate of the rows that were replayed this time; None if none were left.
    """

    rows: int
    sessions: int
    successors: int
    requests: int
    ended: dict[str, int]
    edges: dict[str, int]
    refusals: dict[str, int]
    findings: dict[str, int]
    trailing_rows: int
    seconds_in_status: dict[str, float]
    peak_open: int
    late_rows: int
    verified: bool
    problems: tuple[str, ...] = ()
    rows_per_second: float | None = attrs.field(default=None, eq=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values under stable keys."""
        return attrs.asdict(self) | {"problems": list(self.problems)}

    def moves(self) -> dict[tuple[str, str], int]:
        """Return the moves by (source, target)."""
        pairs = {edge: tuple(edge.split("->")) for edge in self.edges}
        return {(pairs[edge][0], pairs[edge][1]): n for edge, n in self.edges.items()}


@attrs.define(kw_only=True, slots=False, eq=False)
class ReplayError(SessionFsmError):
    """The store holds a replay that this one can't go on with, or is being replayed into."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@attrs.define
class _Lives:
    """What the histories of all sessions add up to."""

    ended: Counter[str] = attrs.field(factory=Counter)
    edges: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    # Summed exactly: seconds as floats would add up to a little more or less.
    times: defaultdict[str, timedelta] = attrs.field(factory=lambda: defaultdict(timedelta))
    turns: list[tuple[datetime, int]] = attrs.field(factory=list)

    def add(self, events: tuple[SessionEvent, ...], lifecycle: Lifecycle, end: datetime) -> None:
        """Add the history of one session, up to the end of the log.

        Raises:
            ReplayError: It was compacted: when it was in which status is not known any longer.
        """
        status, since = None, end
        timed = False
        for event in events:
            if event.kind == "checkpoint":
                problem = f"session {event.session_id!r} was compacted: replay into a new store"
                raise ReplayError(problem=problem)
            if event.kind in ("changed", "purged") or event.target is None:
                continue  # what was purged before is another life
            if status is not None:
                self.times[status] += event.at - since
                self.edges[status, event.target] += 1
                row = lifecycle.find(event.trigger or "", status)
                timed = timed or (row is not None and row.deadline is not None)
            else:
                self.turns.append((event.at, 1))
            status, since = event.target, event.at
        if status is None:
            return
        self.times[status] += end - since
        if status in lifecycle.final:
            self.turns.append((since, -1))
            self.ended["expired" if timed else "exit"] += 1
        else:
            self.ended["open"] += 1

    def peak(self) -> int:
        """Return the most sessions that were open at once; an end makes room at its instant."""
        most = now = 0
        for _, change in sorted(self.turns):
            now += change
            most = max(most, now)
        return most


def make_report(
    log: Log, manager: SessionManager, tally: Tally, rows_per_second: float | None
) -> Report:
    """Read the report of a replay that is done from its store, and verify the store."""
    lifecycle = manager.lifecycle
    lives = _Lives()
    sessions = 0
    for session in sessions_of({row.session for row in log.rows}, manager):
        sessions += 1
        lives.add(manager.history(session.session_id), lifecycle, log.rows[-1].at)
    verified = manager.verify()
    return Report(
        rows=len(log.rows),
        sessions=sessions,
        successors=tally.successors,
        requests=sum(row.request for row in log.rows),
        ended={kind: lives.ended[kind] for kind in ("exit", "expired", "open")},
        edges={
            f"{source}->{target}": lives.edges[source, target] for source, target in lifecycle.edges
        },
        refusals=dict(sorted(tally.refusals.items())),
        findings=dict(sorted(tally.findings.items())),
        trailing_rows=tally.trailing_rows,
        seconds_in_status={
            str(status): lives.times[status].total_seconds() for status in lifecycle.statuses
        },
        peak_open=lives.peak(),
        late_rows=log.late_rows,
        verified=verified.ok,
        problems=verified.problems,
        rows_per_second=rows_per_second,
    )


def sessions_of(names: Container[str], manager: SessionManager) -> Iterator[Session]:
    """Yield the sessions that were made for some ids of a log, by id; a store may hold others."""
    after: str | None = None
    while True:
        page = manager.list(status=manager.lifecycle.statuses, limit=1000, after=after)
        yield from (session for session in page if log_session(session) in names)
        if page.next is None:
            return
        after = page.next


def log_session(session: Session) -> str:
    """Return the id in the log that a session was made for; empty if for none."""
    return str(session.state.metadata.get(LOG_SESSION, ""))
