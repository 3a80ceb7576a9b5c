"""The rows of a log, whatever its format, and the one table that tells what an event means.

A replay knows four kinds of rows only. A format turns its lines into the event words used here;
which word begins or ends a turn stands in `KINDS` and nowhere else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

import attrs


class RowKind(enum.StrEnum):
    """What a row does to its session."""

    BEGIN = "begin"
    """Work is done: begins a turn unless one is in flight."""
    END = "end"
    """The turn in flight has ended."""
    EXIT = "exit"
    """The person has left: the session ends."""
    OTHER = "other"
    """A sign of life, no more."""


REQUEST: Final = "request"
"""The event of a typed prompt; it also starts a conversation."""

COMMAND: Final = "command"
HOOK_EVENT: Final = "data.hookEvent"

DETAILS: Final[Mapping[str, str]] = MappingProxyType(
    {"local_command": COMMAND, "progress": HOOK_EVENT}
)
"""The events whose kind hangs on one more field, and that field."""

KINDS: Final[Mapping[tuple[str, str | None], RowKind]] = MappingProxyType(
    {
        (REQUEST, None): RowKind.BEGIN,  # a person typed a prompt
        ("response", None): RowKind.BEGIN,  # the model answers
        ("tool_result", None): RowKind.BEGIN,  # a tool has run
        ("task_notification", None): RowKind.BEGIN,  # background work reports, and is answered
        ("progress", None): RowKind.BEGIN,  # a tool or a sub-agent at work; a hook is none
        ("progress", "Stop"): RowKind.END,  # the hook that runs when a turn stops
        ("system:turn_duration", None): RowKind.END,
        ("system:stop_hook_summary", None): RowKind.END,
        ("interrupt", None): RowKind.END,  # the person pressed escape
        ("hook_stopped", None): RowKind.END,  # a hook forbade to go on
        ("local_command", "/exit"): RowKind.EXIT,
    }
)
"""The kind of each (event, detail); whatever is not named is `RowKind.OTHER`."""


def kind_of(event: str, fields: Mapping[str, str]) -> RowKind:
    """Tell what a row of this event does to its session.

    Args:
        event: The event word.
        fields: The row's further fields, dotted keys flat; of interest are `DETAILS` only.

    Source: `KINDS`.
    """
    detail = DETAILS.get(event)
    return KINDS.get((event, None if detail is None else fields.get(detail)), RowKind.OTHER)


@attrs.frozen(kw_only=True, weakref_slot=False)
class LogRow:
    """One row of a log, as much of it as a replay needs."""

    at: datetime
    """When it happened: aware, UTC, to the microsecond."""
    session: str
    """The session's id in the log."""
    event: str
    kind: RowKind
    request: bool
    """Whether the row is a typed prompt."""
    file: str
    """The file it stands in, as it was named or found."""
    line: int
    """Its line there, counted from 1."""
