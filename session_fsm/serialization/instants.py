"""Instants as text: written in one way, read in some more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ..clock import instant_text
from ..jsonvalue import dump_json, shown

INSTANT: Final = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
"""The text of an instant, as a regular expression."""
INSTANT_FIELDS: Final = ("created_at", "updated_at", "status_since", "last_activity_at")
"""The fields of a state that are instants."""

_INSTANT_PATTERN = re.compile(INSTANT)
_NO_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_WRITTEN = b" ".join([b"0000-00-00T00:00:00.000000Z"] * len(INSTANT_FIELDS))


def parse_instant(text: str) -> datetime:
    """Read an instant: ISO 8601 with date, time, at most six decimals, and a UTC offset.

    Raises:
        ValueError: The text is no such instant; naive instants, bare dates and week dates are not.

    Example:
        >>> parse_instant("2026-01-31T14:00:00+02:00").isoformat()
        '2026-01-31T12:00:00+00:00'
    """
    if not _INSTANT_PATTERN.fullmatch(text):
        raise ValueError(f"expected an instant (ISO 8601 with a UTC offset), got {shown(text)}")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as fault:
        raise ValueError(f"no such instant, {shown(text)}: {fault}") from None


def instant_or_value(value: Any) -> Any:
    """Return the instant that a text tells, or the value itself for the constructor to refuse."""
    if not isinstance(value, str):
        return value
    try:
        return parse_instant(value)
    except ValueError:
        return value


def deadlines_or_value(value: Any) -> Any:
    """Return instants by task where texts by task were, or what the constructor refuses."""
    if not isinstance(value, Mapping):
        return value
    return {task: instant_or_value(at) for task, at in value.items()}


def instant_json(at: datetime) -> Any:
    """Return what the writer of JSON writes as the `instant_text` of an instant.

    It knows instants, and writes them in the same form but for those of a whole second.
    """
    if type(at) is not datetime or at.tzinfo is not UTC:
        return instant_text(at)
    return at if at.microsecond else orjson.Fragment(dump_json(at)[:20] + b'.000000Z"')


def written_instants(fields: Mapping[str, str]) -> tuple[datetime, datetime, datetime, datetime]:
    """Return the instants of a state whose texts `instant_text` gave, as `INSTANT_FIELDS` stand.

    Raises:
        ValueError: A text is none of these, or tells no such instant.
        KeyError, TypeError: There is no such text.
    """
    first, last = fields["created_at"], fields["updated_at"]
    since, active = fields["status_since"], fields["last_activity_at"]
    # What `datetime` reads at this length is more than that: weeks, commas, other letters than T.
    if f"{first} {last} {since} {active}".encode().translate(_NO_DIGITS) != _WRITTEN:
        raise ValueError("not as instants are written")
    return _read(first), _read(last), _read(since), _read(active)


_read = datetime.fromisoformat
