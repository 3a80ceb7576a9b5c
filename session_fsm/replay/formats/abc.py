"""What a log format is, and the checks that every format makes.

A format is a small module with one `Format` value: how its lines are told from others, and how one
line's JSON object becomes an `Entry`. The package's `FORMATS` names them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import attrs

from ...clock import as_utc
from ...fields import MAX_ID_CHARACTERS
from ...jsonvalue import shown

NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})

FIRST_INSTANT: Final = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_TIME: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""Instants from here on are no times of a log: a deadline after them could not be told."""

_END_SECONDS: Final = int((END_OF_TIME - FIRST_INSTANT).total_seconds())
_MILLISECONDS_FROM: Final = 10**11
"""Epoch seconds of this size lie in the year 5138; as milliseconds they lie in 1973."""

_INSTANT: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?P<zone>Z|[+-]\d\d:\d\d)?", re.ASCII
)


class RowError(ValueError):
    """A line that should be a row and is none.

    Args:
        problems: What is wrong with it, in words; at least one.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@attrs.frozen(kw_only=True)
class Entry:
    """What a format makes of one line."""

    at: datetime
    """Aware, UTC."""
    session: str
    event: str
    """A word that `rows.KINDS` may know."""
    fields: Mapping[str, str] = NO_FIELDS
    """The fields that the event's kind hangs on; see `rows.DETAILS`."""


@attrs.frozen(kw_only=True)
class Format:
    """One way to write a log, a JSON object on each line."""

    name: str
    """What a person calls it."""
    recognizes: Callable[[Mapping[str, Any]], bool]
    """Whether an object is a line of this format, faulty or not."""
    entry: Callable[[Mapping[str, Any]], Entry | None]
    """The line's entry; None for a line that is no row by design. Raises `RowError`."""


def text_field(line: Mapping[str, Any], key: str, problems: list[str]) -> str:
    """Return a text that must be there; add a problem and return an empty one if it is not."""
    value = line.get(key)
    if isinstance(value, str) and value:
        return value
    problems.append(f"{key}: {_expected('a text', value, key in line)}")
    return ""


def optional_text_field(line: Mapping[str, Any], key: str, problems: list[str]) -> str | None:
    """Return a text that may be missing or null."""
    value = line.get(key)
    if value is not None and not isinstance(value, str):
        problems.append(f"{key}: {_expected('a text', value, True)}")
        return None
    return value


def session_field(line: Mapping[str, Any], key: str, problems: list[str]) -> str:
    """Return the id of a session, one that the library takes."""
    value = line.get(key)
    if not isinstance(value, str):
        problems.append(f"{key}: {_expected('the id of a session', value, key in line)}")
        return ""
    if not 1 <= len(value) <= MAX_ID_CHARACTERS:
        problems.append(
            f"{key}: an id has 1 to {MAX_ID_CHARACTERS} characters, this one has {len(value)}"
        )
    elif not value.isprintable():
        problems.append(f"{key}: {shown(value)} has characters that can't be printed")
    elif value != value.strip():
        problems.append(f"{key}: {shown(value)} begins or ends with a blank")
    return value


def epoch_field(line: Mapping[str, Any], key: str, problems: list[str]) -> datetime:
    """Return an instant given in seconds since 1970, exact to the microsecond."""
    value = line.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.append(f"{key}: {_expected('seconds since 1970', value, key in line)}")
    # NaN compares false with everything, and so is out of range too.
    elif not 0 <= value < _END_SECONDS:
        problems.append(f"{key}: {shown(value)} {_out_of_range(value)}")
    else:
        return datetime.fromtimestamp(value, UTC)
    return FIRST_INSTANT


def instant_field(line: Mapping[str, Any], key: str, problems: list[str]) -> datetime:
    """Return an instant given as ISO 8601 text with a time zone."""
    value = line.get(key)
    match = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if not isinstance(value, str) or match is None:
        problems.append(f"{key}: {_expected('an ISO 8601 instant', value, key in line)}")
        return FIRST_INSTANT
    if match["zone"] is None:
        problems.append(f"{key}: {shown(value)} has no time zone")
        return FIRST_INSTANT
    try:
        at = as_utc(datetime.fromisoformat(value))
    except ValueError as fault:
        problems.append(f"{key}: {shown(value)} is no instant: {fault}")
        return FIRST_INSTANT
    if not FIRST_INSTANT <= at < END_OF_TIME:
        problems.append(f"{key}: {shown(value)} {_out_of_range(None)}")
        return FIRST_INSTANT
    return at


def _expected(what: str, value: object, present: bool) -> str:
    return f"expected {what}, got {shown(value)}" if present else f"expected {what}, it is missing"


def _out_of_range(value: float | None) -> str:
    hint = "; are these milliseconds?" if value is not None and value >= _MILLISECONDS_FROM else ""
    return f"lies outside the years 1970 to {END_OF_TIME.year - 1}{hint}"
