"""Text, instants and durations as people are shown them.

What is stored may have been written by anybody. A terminal obeys some characters and hides others,
so nothing is shown that has not been through `safe`.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Final

_UNSEEN: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Characters that can't be seen although Unicode takes them for letters and marks."""

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def safe(text: str) -> str:
    r"""Return a text as one line that a terminal only shows.

    Control characters, line breaks, marks that turn the direction of writing and characters that
    can't be seen become escapes. Blanks of any width stay.

    >>> print(safe("red: \x1b[31m, next\nline, hidden\u200b, turned\u202e"))
    red: \x1b[31m, next\nline, hidden\u200b, turned\u202e
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_shown(character) else _escape(character) for character in text)


def _is_shown(character: str) -> bool:
    if character in _UNSEEN:
        return False
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def instant(at: datetime) -> str:
    """Return an instant to the second.

    >>> instant(datetime(2026, 1, 31, 12, tzinfo=UTC))
    '2026-01-31 12:00:00Z'
    """
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'seconds')}Z"


def duration(seconds: float, *, units: int = 2) -> str:
    """Return a duration in its largest units, rounded down.

    >>> duration(93_784), duration(60), duration(59.99), duration(0.25), duration(0)
    ('1 d 2 h', '1 min', '59 s', '0.25 s', '0 s')
    >>> duration(93_784, units=1)
    '1 d'
    """
    if 0 < seconds < 1:
        return f"{seconds:.2g} s"
    left = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count:,} {unit}")
        if parts and (len(parts) == units or not count):
            break
    return " ".join(parts) or "0 s"


def when(at: datetime, now: datetime, *, units: int = 2) -> str:
    """Return an instant as seen from another one.

    >>> noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    >>> when(noon, noon.replace(hour=11)), when(noon, noon.replace(hour=14)), when(noon, noon)
    ('in 1 h', '2 h ago', 'now')
    """
    seconds = (at - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    length = duration(abs(seconds), units=units)
    return f"in {length}" if seconds > 0 else f"{length} ago"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its word.

    >>> counted(1, "session"), counted(1200, "session"), counted(0, "entry", "entries")
    ('1 session', '1,200 sessions', '0 entries')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
