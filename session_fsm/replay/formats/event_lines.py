"""Event lines: one flat JSON object for each event.

Wire form, of which further keys are not looked at:

    {"ts": 1767615451.459, "session": "a1", "event": "progress", "data.hookEvent": "Stop"}

- `ts`: seconds since 1970, UTC.
- `session`: the session's id.
- `event`: the event word; see `session_fsm.replay.rows`.
- `command`, `data.hookEvent`: what a `local_command` and a hook's `progress` are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..rows import DETAILS
from .abc import (
    NO_FIELDS,
    Entry,
    Format,
    RowError,
    epoch_field,
    optional_text_field,
    session_field,
    text_field,
)


def _recognizes(line: Mapping[str, Any]) -> bool:
    # Two of the three, so that a line which lacks one is a faulty event line, not a stranger.
    return ("ts" in line) + ("session" in line) + ("event" in line) >= 2


def _entry(line: Mapping[str, Any]) -> Entry:
    problems: list[str] = []
    at = epoch_field(line, "ts", problems)
    session = session_field(line, "session", problems)
    event = text_field(line, "event", problems)
    fields = NO_FIELDS
    if (key := DETAILS.get(event)) is not None:
        detail = optional_text_field(line, key, problems)
        fields = NO_FIELDS if detail is None else {key: detail}
    if problems:
        raise RowError(*problems)
    return Entry(at=at, session=session, event=event, fields=fields)


EVENT_LINES = Format(name="event lines", recognizes=_recognizes, entry=_entry)
