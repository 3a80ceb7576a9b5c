"""How wide texts are on a terminal, and breaking them there."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator


def columns(text: str) -> int:
    """Return how many columns a text takes; an ideograph takes two, an accent of its own none.

    >>> columns("idle"), columns("日本")
    (4, 4)
    """
    return sum(map(_column, text))


def padded(text: str, width: int) -> str:
    """Return a text with as many spaces behind it as it lacks."""
    return text + " " * (width - columns(text))


def wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines, between words where that is possible.

    Args:
        text: Words with a space between them.
        width: Most columns of a line; at least 2.

    Returns:
        The lines; none for an empty text.
    """
    lines: list[str] = []
    for word in text.split(" "):
        if lines and columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines += _cut(word, width)
    return [line for line in lines if line]


def _cut(word: str, width: int) -> Iterator[str]:
    part = ""
    for character in word:
        if columns(part + character) > width:
            yield part
            part = ""
        part += character
    yield part


def _column(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
