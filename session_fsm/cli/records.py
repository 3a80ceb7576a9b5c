"""What is stored, as JSON under stable keys: the names are those of the library's own fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from ..clock import instant_text
from ..errors import Refusal
from ..explain import next_timed
from ..lifecycle import Lifecycle
from ..serialization import serialize, thawed
from ..session import Session, SessionEvent
from ..state import masked as masked

FREE_FIELDS: Final = ("llm_config", "metadata")
"""The fields that hold what their owner likes, so perhaps secrets."""


def instant_or_none(at: datetime | None) -> str | None:
    """Return an instant as it is stored."""
    return None if at is None else instant_text(at)


def session_record(
    session: Session, lifecycle: Lifecycle, *, reveal: bool = False
) -> dict[str, Any]:
    """Return a session: its id, status and revision, what fires by itself next, and its state."""
    state = serialize(session.state, lifecycle)
    if not reveal:
        state |= {name: masked(state[name]) for name in FREE_FIELDS}
    return {
        "session_id": session.session_id,
        "status": str(session.status),
        "revision": session.revision,
        "next_timed": _timed_record(next_timed(session.state, lifecycle)),
        "state": state,
    }


def _timed_record(timed: tuple[str, datetime] | None) -> dict[str, str] | None:
    return None if timed is None else {"trigger": timed[0], "at": instant_text(timed[1])}


def refusal_record(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal, with every field of it."""
    return {
        "kind": refusal.kind,
        "trigger": refusal.trigger,
        "target": None if refusal.target is None else str(refusal.target),
        "status": str(refusal.status),
        "failed_guards": [
            {"name": failed.name, "reason": failed.reason} for failed in refusal.failed_guards
        ],
        "permitted": list(refusal.permitted),
        "next_timed": _timed_record(refusal.next_timed),
        "broken": list(refusal.broken),
    }


def event_record(event: SessionEvent, *, reveal: bool = False) -> dict[str, Any]:
    """Return an event."""
    return {
        "session_id": event.session_id,
        "revision": event.revision,
        "kind": event.kind,
        "trigger": event.trigger,
        "source": event.source,
        "target": event.target,
        "at": instant_text(event.at),
        "reason": event.reason,
        "changes": shown_changes(event.changes, reveal=reveal),
        "digest": event.digest,
    }


def shown_changes(changes: Mapping[str, Any], *, reveal: bool) -> dict[str, Any]:
    """Return the changes of an event, what looks like a secret replaced unless it is revealed."""
    return {
        name: masked(value) if name in FREE_FIELDS and not reveal else thawed(value)
        for name, value in changes.items()
    }


def failed_records(failed: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Return sessions with which something failed."""
    return [{"session_id": session_id, "problem": problem} for session_id, problem in failed]


def lifecycle_record(lifecycle: Lifecycle) -> dict[str, Any]:
    """Return a lifecycle: its statuses, its rows in order, and what else is known of it."""
    return {
        "lifecycle": lifecycle.name,
        "fingerprint": lifecycle.fingerprint,
        "statuses": [str(status) for status in lifecycle.statuses],
        "initial": str(lifecycle.initial),
        "final": [str(status) for status in lifecycle.final],
        "rows": [
            {
                "trigger": row.trigger,
                "from": [str(source) for source in lifecycle.sources(row)],
                "to": None if row.target is None else str(row.target),
                "guards": [guard.name for guard in row.conditions],
                "fires_at": None if row.deadline is None else row.deadline.name,
                "activity": row.activity,
                "ending": row.ending,
                "required": list(row.required),
                "optional": list(row.optional),
                "why": row.why,
            }
            for row in lifecycle.rows
        ],
        "edges": [[str(source), str(target)] for source, target in lifecycle.edges],
        "roles": dict(lifecycle.roles),
        "grace_seconds": {name: grace.total_seconds() for name, grace in lifecycle.graces.items()},
    }
