"""How a drawing puts things in words: single printable lines, instants and durations."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

UNSEEN: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Categories of characters that break a line, turn its direction, or can't be seen."""

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def plain(text: str) -> str:
    r"""Return a text as one printable line, what can't be seen written as an escape.

    >>> print(plain("two\nlines"))
    two\nlines
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii") if _unseen(character) else character
        for character in text
    )


def joined(words: Iterable[str], last: str = "and") -> str:
    """Return words as a list to be read: `a, b and c`."""
    *most, end = words
    return f"{', '.join(most)} {last} {end}" if most else end


def times(count: int) -> str:
    """Return how often something happened.

    >>> times(2312)
    '2,312 ×'
    """
    return f"{count:,} ×"


def moment(at: datetime) -> str:
    """Return an instant to the second.

    >>> moment(datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC))
    '2026-01-31 12:00:05 UTC'
    """
    return f"{day(at)} {time_of_day(at)} UTC"


def day(at: datetime) -> str:
    """Return the day of an instant, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def time_of_day(at: datetime) -> str:
    """Return the time of an instant, to the second, in UTC."""
    return f"{at.astimezone(UTC):%H:%M:%S}"


def span(length: timedelta) -> str:
    """Return a duration in its two largest units.

    >>> span(timedelta(hours=1, seconds=125)), span(timedelta(milliseconds=250))
    ('1 h 2 min', '0.25 s')
    """
    seconds = length.total_seconds()
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{int(seconds)} s"
    parts: list[tuple[int, str]] = []
    rest = int(seconds)
    for unit, size in _UNITS:
        number, rest = divmod(rest, size)
        if parts or number:
            parts.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number)


def _unseen(character: str) -> bool:
    # The last two of each plane are no characters, and XML has no way to write them.
    return unicodedata.category(character) in UNSEEN or ord(character) & 0xFFFE == 0xFFFE
