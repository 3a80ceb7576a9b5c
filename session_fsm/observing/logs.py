"""Events in the standard log, one line for each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from ..clock import instant_text
from ..session import SessionEvent
from ..telling import Subscriber

logger = logging.getLogger("session_fsm.events")


class Subscribable(Protocol):
    """A manager, of threads or of a loop."""

    def subscribe(
        self, callback: Subscriber, session_id: str | None = None, /
    ) -> Callable[[], None]:
        """Have a callback told of events; returns what ends that."""
        ...


def log_events(manager: Subscribable) -> Callable[[], None]:
    """Log what a manager does to sessions from now on, to the logger `session_fsm.events`.

    Each that is created, moved or purged is a line at DEBUG. An event that gives the session an
    `error` is a line at WARNING. For structured logs each record has `session_id`,
    `session_revision`, `session_event` (the kind), `session_trigger`, `session_source`,
    `session_target`, `session_at` (ISO 8601, UTC), `session_reason` and `session_error` (text, or
    None). Nothing of `metadata` or `llm_config` is ever logged.

    Args:
        manager: Whose events; what other processes do is not among them.

    Returns:
        A function that ends it.
    """
    return manager.subscribe(_log)


def _log(event: SessionEvent) -> None:
    error = event.changes.get("error")
    level = logging.DEBUG if error is None else logging.WARNING
    if (event.kind == "changed" and error is None) or not logger.isEnabledFor(level):
        return
    fields: dict[str, Any] = {
        "session_id": event.session_id,
        "session_revision": event.revision,
        "session_event": event.kind,
        "session_trigger": event.trigger,
        "session_source": _word(event.source),
        "session_target": _word(event.target),
        "session_at": instant_text(event.at),
        "session_reason": event.reason,
        "session_error": error,
    }
    logger.log(level, "%s", _line(event, error), extra=fields)


def _word(status: str | None) -> str | None:
    return None if status is None else str(status)


def _line(event: SessionEvent, error: str | None) -> str:
    told = f"session {event.session_id!r} {event.kind}"
    if event.trigger is not None:
        told += f" by {event.trigger!r}"
    if event.source != event.target and event.source is not None:
        told += f" from {event.source}"
    told += f" to {event.target}" if event.kind != "purged" else ""
    told += f", revision {event.revision}"
    if event.reason is not None:
        told += f", reason {event.reason!r}"
    return told if error is None else f"{told}, error {error!r}"
